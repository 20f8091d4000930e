"""The messages that our event triggers write into the transaction that changed a definition.

Any role may emit logical messages by default, so ours begin with a random secret that only the
owner's login can read (`visibility.md` §6). The content is ``<secret> <json>`` with ``tag`` (the
command), ``objects`` (class, oid, schema, identity, and the relation concerned) and ``complete``:
whether the objects listed are all that the command may concern.
"""

import hmac
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from heliograph.core.replication.transaction import LogicalMessage, Transaction
from heliograph.postgres.dependency_publication import DEPENDENCY_PUBLICATION

PREFIX: Final = "heliograph.rights"

#: Classes whose change does not change what anybody may see of existing tables.
_HARMLESS: Final = frozenset({"index", "sequence", "table constraint"})


#: Classes whose change may change what the publication sends of a table.
_PUBLISHING: Final = frozenset({"publication", "publication relation", "publication namespace"})

#: How a message names a table of the server's own publication: following it changes no rights.
_FOLLOWED: Final = f" in publication {DEPENDENCY_PUBLICATION}"


#: Unlike everything else in the stream a message comes in the database's own encoding. In all that
#: PostgreSQL allows there, bytes below 128 are ASCII and no part of anything else; nothing that is
#: read here needs the others.
_ASCII: Final = bytes(range(128)) + b"?" * 128


class _Object(msgspec.Struct):
    kind: str = msgspec.field(name="class", default="")
    identity: str | None = None
    relation: int | None = None

    def is_harmless(self) -> bool:
        """Tell whether its change leaves what anybody may see as it was."""
        if self.kind == "publication relation":
            # Where it was taken out no table is named: its changes are not seen any more.
            return self.relation is not None and (self.identity or "").endswith(_FOLLOWED)
        return self.kind in _HARMLESS


class _Content(msgspec.Struct):
    tag: str = ""
    objects: list[_Object] = []
    complete: bool = False


@dataclass(frozen=True, slots=True)
class DefinitionChange:
    """What one transaction changed.

    Attributes:
        tables: Oids of the tables named; others may be concerned through functions or roles.
        is_general: Whether more than the named tables may be concerned.
        is_publishing: Whether the publication may send another part of them from then on.
        is_of_rights: Whether anything but the publication has changed.
    """

    tables: frozenset[int] = frozenset()
    is_general: bool = False
    is_publishing: bool = False
    is_of_rights: bool = True

    def of_the_past(self) -> "DefinitionChange":
        """Return the same as known by an earlier process: what is read now tells who is late."""
        return replace(self, is_publishing=False)

    def combined(self, other: "DefinitionChange") -> "DefinitionChange":
        """Return what both changed."""
        return DefinitionChange(
            self.tables | other.tables,
            self.is_general or other.is_general,
            self.is_publishing or other.is_publishing,
            self.is_of_rights or other.is_of_rights,
        )


_WIDEST: Final = DefinitionChange(is_general=True, is_publishing=True)


@dataclass(slots=True)
class RightsMessages:
    """Reads them.

    Attributes:
        secret: What genuine messages begin with; None when there are no event triggers.
        forged: Messages with our prefix that did not begin with the secret.
    """

    secret: bytes | None
    forged: int = field(default=0)

    def read(self, transaction: Transaction) -> DefinitionChange | None:
        """Return what a transaction changed; None when it carries no genuine message.

        Where messages were left out, because together they were too large, one of ours may have
        been among them: the widest reading.
        """
        found: DefinitionChange | None = None
        if transaction.messages_omitted and self.secret is not None:
            found = _WIDEST
        for message in transaction.messages:
            change = self._read_one(message)
            if change is not None:
                found = change if found is None else found.combined(change)
        return found

    def _read_one(self, message: LogicalMessage) -> DefinitionChange | None:
        if message.prefix != PREFIX:
            return None
        secret, _, text = message.content.partition(b" ")
        if self.secret is None or not hmac.compare_digest(secret, self.secret):
            self.forged += 1
            return None
        try:
            content = msgspec.json.decode(text.translate(_ASCII), type=_Content)
        except msgspec.DecodeError:
            # Genuine but not understood (written by another version): the widest reading.
            return _WIDEST
        concerned = [part for part in content.objects if not part.is_harmless()]
        if content.complete and not concerned:
            return None
        tables = frozenset(part.relation for part in concerned if part.relation is not None)
        unnamed = any(part.relation is None for part in concerned)
        is_publishing = any(part.kind in _PUBLISHING for part in concerned)
        if not content.complete:
            # Where there are too many objects only the command is named.
            is_publishing = is_publishing or "PUBLICATION" in content.tag
            return DefinitionChange(tables, is_general=True, is_publishing=is_publishing)
        is_of_rights = any(part.kind not in _PUBLISHING for part in concerned)
        return DefinitionChange(tables, unnamed, is_publishing, is_of_rights)
