"""Why the hub gives a repository to others only, in words for whoever asked for it."""

from __future__ import annotations

from dataclasses import dataclass

from .hub import Denied


@dataclass(frozen=True)
class Denial:
    """Why a repository was not given. `page` is where its licence can be accepted, or "" if that is not the reason."""

    reason: str
    page: str = ""


def denial_of(denied: Denied, repository: str, token: str | None, *, gated: bool = False) -> Denial:
    """What to say to whoever asked with this token; `gated` says that a licence is known to be accepted first."""
    if denied.code == "RepoNotFound" or not (gated or denied.code == "GatedRepo" or token):
        return Denial(f"there is no repository {repository}, or it is open only to those with a token")
    if denied.status == 451:
        return Denial(f"{repository} was closed for legal reasons")
    if token is None:
        reason = "no token was given"
    elif denied.status == 401 and denied.code != "GatedRepo":
        reason = "the hub does not know the token that was given"
    else:
        reason = "the account of the token has not accepted it, or the token may not read gated repositories"
    return Denial(reason, f"https://huggingface.co/{repository}")
