"""PostgreSQL refuses to run as root. Which other identity it can take depends on where the clone lies."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

UNPRIVILEGED = ("postgres", "nobody")


@dataclass(frozen=True)
class Identity:
    """What stands before a command line so that it runs without root, and who must own its files (None: we do)."""

    prefix: tuple[str, ...] = ()
    owner: tuple[int, int] | None = None

    def own(self, folder: Path) -> None:
        """Give `folder` and what is in it to the identity."""
        if self.owner is None:
            return
        for path in (folder, *folder.rglob("*")):
            os.chown(path, *self.owner, follow_symlinks=False)


def choose(folder: Path) -> Identity:
    """Return an identity that is not root and can reach `folder`; OSError when the system offers none."""
    if os.geteuid() != 0:
        return Identity()
    account = _account()
    owner = (account.pw_uid, account.pw_gid)
    ids = f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"
    keep = ("--pdeathsig", "INT")  # changing identity forgets the one asked for
    plain = Identity(("setpriv", *ids, *keep), owner)
    if _reachable_by_all(folder):
        return plain
    # A clone below root's own 0700 home: an account cannot enter, root under another number can.
    mapped = Identity(("unshare", "--user", "--map-user=1000", "--map-group=1000", "setpriv", *keep), (0, 0))
    capable = Identity(("setpriv", *ids, *keep, "--inh-caps=+dac_override", "--ambient-caps=+dac_override"), owner)
    for identity in (mapped, capable):
        if _works(identity, folder):
            return identity
    raise OSError(
        f"PostgreSQL does not run as root, and {folder} lies where no other account may go: "
        "move the clone, or run as an ordinary user."
    )


def _account() -> pwd.struct_passwd:
    for name in UNPRIVILEGED:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise OSError("Neither an account postgres nor nobody exists: run as an ordinary user.")


def _reachable_by_all(folder: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in folder.resolve().parents)


def _works(identity: Identity, folder: Path) -> bool:
    if shutil.which(identity.prefix[0]) is None:
        return False
    tried = subprocess.run([*identity.prefix, "ls", str(folder)], capture_output=True, check=False)
    return tried.returncode == 0
