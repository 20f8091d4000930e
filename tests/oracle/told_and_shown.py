"""What is wrong with the changes told of one transaction, given what SELECT shows."""


def wrong_records(changes, shown, written):
    told = [change["record"] for change in changes if change["type"] != "DELETE"]
    if sorted(told, key=lambda row: row["id"]) != [shown[key] for key in sorted(written)]:
        yield "records", told, sorted(written)


def wrong_types(changes, existing):
    for change in changes:
        key = (change["record"] if change["type"] == "INSERT" else change["old_record"])["id"]
        if (key in existing) == (change["type"] == "INSERT"):
            yield "type", change


def wrong_view(changes, shown_before, shown):
    """Say what is wrong for one who keeps rows, FULL identity."""
    rows = dict(shown_before)
    for change in changes:
        old = change.get("old_record")
        if old is not None:
            seen = shown_before.get(old["id"])
            key_only = {"id": old["id"]}
            if change["type"] == "DELETE" and (seen is None or old not in (seen, key_only)):
                yield "deleted row", change
            if change["type"] == "UPDATE" and old != (seen or key_only):
                yield "old record", change
            rows.pop(old["id"], None)
    rows |= {c["record"]["id"]: c["record"] for c in changes if c["type"] != "DELETE"}
    if rows != shown:
        yield "view", rows


def wrong_keys(changes, gone):
    """Say what is wrong with the keys told, default identity."""
    told = [change["old_record"] for change in changes if change["type"] == "DELETE"]
    if sorted(old["id"] for old in told) != sorted(gone):
        yield "deleted keys", told, gone
    if any(set(change.get("old_record") or {}) - {"id"} for change in changes):
        yield "more than a key"
