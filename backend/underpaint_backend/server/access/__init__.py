"""Who may come in, and how much of the daemon is theirs. Open `handshake.py` first."""
