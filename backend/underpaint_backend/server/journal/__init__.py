"""The daemon's journal: what was accepted is kept in a SQLite file until its client has fetched it.

Open `journal.py` first: the side of the event loop. `writer.py` is the thread's side, `statements.py` the tables and
what is done to them, `file.py` how the file is opened, checked and set aside, `claim.py` that one daemon has it.
"""

from .journal import Journal
from .rows import Contents, Contradiction, EventRow, JobRow, JournalError, NotInJournal, SessionRow

__all__ = [
    "Contents",
    "Contradiction",
    "EventRow",
    "JobRow",
    "Journal",
    "JournalError",
    "NotInJournal",
    "SessionRow",
]
