// Drives the server with the unmodified supabase-js: prints one JSON line per thing that it was told.
// Usage: node live_rows.mjs URL ANON_KEY USER_TOKEN VSN FILTER   (FILTER may be empty)
import { createClient } from "@supabase/supabase-js";

const [url, anonKey, token, vsn, filter] = process.argv.slice(2);
const say = (what) => process.stdout.write(JSON.stringify(what) + "\n");
const client = createClient(url, anonKey, {
  // Not `setAuth(token)`: after the join the client asks this callback again and uses its answer.
  accessToken: async () => token,
  realtime: { vsn },
});
await client.realtime.setAuth();
const entry = { event: "*", schema: "public", table: "notes", ...(filter ? { filter } : {}) };
const channel = client
  .channel("notes")
  .on("postgres_changes", entry, (change) =>
    say({ change: change.eventType, new: change.new, old: change.old, errors: change.errors }),
  )
  .on("system", {}, (system) => say({ system: system.message, status: system.status }))
  .subscribe((status, error) => say({ status, error: error?.message }));
process.stdin.on("data", async () => {
  say({ left: await client.removeChannel(channel) });
  await client.realtime.disconnect();
  process.exit(0);
});
