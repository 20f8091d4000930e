// Follows a table with the resuming helper: prints one JSON line per row handed on, and per load.
// Usage: node resuming.mjs URL ANON_KEY TOKEN VSN TABLE FAILING_LOADS   (a line on standard input ends it)
import { createClient } from "@supabase/supabase-js";
import { ResumingChannel } from "../src/heliograph/client/resuming-channel.mjs";

const [url, anonKey, token, vsn, table, failingLoads] = process.argv.slice(2);
const say = (what) => process.stdout.write(JSON.stringify(what) + "\n");
const client = createClient(url, anonKey, { accessToken: async () => token, realtime: { vsn } });
await client.realtime.setAuth();
let loads = 0;
const load = async (reason) => {
  say({ load: reason });
  if (++loads <= Number(failingLoads)) throw new Error("as asked");
};
const channel = new ResumingChannel(client.channel(table), { load });
channel
  .on({ event: "*", schema: "public", table }, (change) => say({ id: change.new.id }))
  .subscribe((status) => say({ status }));
process.stdin.on("data", () => process.exit(0));
