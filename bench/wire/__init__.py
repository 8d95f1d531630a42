"""What the measurements of the wire share: frames by hand, thin clients, a proxy that counts, a process's memory."""
