"""Messages that steer the server count only with the secret (S24, `visibility.md` §6)."""

import pytest

from heliograph.core.replication.lsn import Lsn
from heliograph.core.replication.transaction import LogicalMessage
from heliograph.server.delivery.rights_messages import DefinitionChange, RightsMessages


class Carrying:
    def __init__(self, *contents, prefix="heliograph.rights", omitted=0):
        self.messages_omitted = omitted
        self.messages = tuple(LogicalMessage(True, Lsn(1), prefix, text) for text in contents)


@pytest.mark.security
@pytest.mark.parametrize(
    "content", [b"", b"wrong {}", b"s3cre {}", b's3cret2 {"tag":"GRANT"}', b"\xff\x00"]
)
def test_a_forged_message_changes_nothing_and_is_counted(content):
    messages = RightsMessages(b"s3cret")
    assert messages.read(Carrying(content)) is None
    assert messages.forged == 1


def test_without_event_triggers_every_message_is_forged():
    messages = RightsMessages(None)
    assert messages.read(Carrying(b"None {}")) is None
    assert messages.forged == 1


def test_a_policy_or_table_names_the_relation_that_it_concerns():
    messages = RightsMessages(b"s")
    content = b's {"complete":true,"objects":[{"class":"policy","oid":3,"relation":7}]}'
    assert messages.read(Carrying(content)) == DefinitionChange(frozenset({7}))


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("\u00e9t\u00e9", "latin1"),
        ("\u0437\u0430\u043a\u0430\u0437", "koi8-r"),
        ("\u8868", "euc-jp"),
        ("\u8868", "utf-8"),
    ],
)
def test_names_in_the_encoding_of_the_database_do_no_harm(name, encoding):
    messages = RightsMessages(b"s")
    policy = '{"class":"policy","identity":"' + name + '","relation":7}'
    content = b's {"complete":true,"objects":[' + policy.encode(encoding) + b"]}"
    assert messages.read(Carrying(content)) == DefinitionChange(frozenset({7}))


def test_what_names_no_relation_concerns_everything():
    messages = RightsMessages(b"s")
    content = b's {"complete":true,"objects":[{"class":"function","oid":9,"relation":null}]}'
    assert messages.read(Carrying(content)) == DefinitionChange(is_general=True)
    grant = b's {"tag":"GRANT","complete":false,"objects":[{"class":"table"}]}'
    assert messages.read(Carrying(grant)) == DefinitionChange(is_general=True)
    many = b's {"tag":"ALTER PUBLICATION","complete":false,"objects":[]}'
    for widest in (many, b"s not json"):
        expected = DefinitionChange(is_general=True, is_publishing=True)
        assert messages.read(Carrying(widest)) == expected


def test_an_index_concerns_nobody_and_other_prefixes_are_not_ours():
    messages = RightsMessages(b"s")
    content = b's {"complete":true,"objects":[{"class":"index","oid":9}]}'
    assert messages.read(Carrying(content)) is None
    assert messages.read(Carrying(b"s {}", prefix="other")) is None
    assert messages.forged == 0


def test_a_message_that_was_left_out_may_have_been_ours():
    widest = DefinitionChange(is_general=True, is_publishing=True)
    assert RightsMessages(b"s").read(Carrying(omitted=1)) == widest
    assert RightsMessages(None).read(Carrying(omitted=1)) is None


def test_several_messages_add_up():
    messages = RightsMessages(b"s")
    first = b's {"complete":true,"objects":[{"class":"table","relation":1}]}'
    second = b's {"complete":true,"objects":[{"class":"table","relation":2},{"class":"type"}]}'
    assert messages.read(Carrying(first, second)) == DefinitionChange(frozenset({1, 2}), True)


def test_following_a_table_concerns_nobody_and_publishing_one_does():
    messages = RightsMessages(b"s")
    content = (
        b's {"complete":true,"objects":[{"class":"publication relation","relation":7,'
        b'"identity":"public.members in publication %s"}]}'
    )
    assert messages.read(Carrying(content % b"heliograph_dependencies")) is None
    published = messages.read(Carrying(content % b"supabase_realtime"))
    assert published == DefinitionChange(frozenset({7}), is_publishing=True, is_of_rights=False)


def test_a_publication_changes_no_rights_but_what_changes_with_it_may():
    messages = RightsMessages(b"s")
    publication = b's {"complete":true,"objects":[{"class":"publication","oid":9}]}'
    changed = messages.read(Carrying(publication))
    assert changed == DefinitionChange(is_general=True, is_publishing=True, is_of_rights=False)
    policy = b's {"complete":true,"objects":[{"class":"policy","oid":3,"relation":7}]}'
    both = messages.read(Carrying(publication, policy))
    assert both == DefinitionChange(frozenset({7}), is_general=True, is_publishing=True)
    dropped = (
        b's {"complete":true,"objects":[{"class":"publication relation","relation":null},'
        b'{"class":"table","relation":7}]}'
    )
    assert messages.read(Carrying(dropped)).is_of_rights
