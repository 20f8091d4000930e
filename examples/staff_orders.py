"""Print what happens to orders, as the member of staff whose token STAFF_TOKEN holds."""

import asyncio
import os

from realtime import AsyncRealtimeClient


def show(change: dict) -> None:
    kind, row = change["data"]["type"], change["data"].get("record") or change["data"]["old_record"]
    print(kind.lower(), row.get("order_number"), row.get("status"), row.get("branch_id"))


async def main() -> None:
    url, token = os.environ["SUPABASE_URL"], os.environ["STAFF_TOKEN"]
    client = AsyncRealtimeClient(f"{url}/realtime/v1", token)
    orders = client.channel("orders").on_postgres_changes("*", show, table="orders")
    await orders.subscribe(lambda status, error: print(status.lower(), error or ""))
    await asyncio.Event().wait()


asyncio.run(main())
