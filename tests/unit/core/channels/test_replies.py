from heliograph.core.channels import replies
from heliograph.core.wire.messages import Message


def test_a_reply_echoes_the_request_and_falls_back_to_the_channels_join_ref():
    request = Message("3", "4", "realtime:a", "phx_leave", {})
    assert replies.reply(request, status="ok", response={}, join_ref="9") == Message(
        "3", "4", "realtime:a", "phx_reply", {"status": "ok", "response": {}}
    )
    bare = Message(None, "4", "realtime:a", "x", {})
    assert replies.reply_error(bare, "no", join_ref="9").join_ref == "9"


def test_close_carries_the_join_ref_twice():
    assert replies.phx_close("realtime:a", "7") == Message("7", "7", "realtime:a", "phx_close", {})


def test_a_system_message_has_all_four_keys():
    message = replies.system("realtime:a:b", "1", extension="system", status="ok", text="t")
    assert message == Message(
        "1",
        None,
        "realtime:a:b",
        "system",
        {"channel": "a:b", "extension": "system", "message": "t", "status": "ok"},
    )


def test_only_codes_of_ours_become_labels():
    assert replies.reason_code("InvalidJWTToken: Token has expired 3 seconds ago") == (
        "InvalidJWTToken"
    )
    assert replies.reason_code("unmatched topic") == "other"
    assert replies.reason_code("two words: x") == "other"
