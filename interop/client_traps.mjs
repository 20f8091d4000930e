// Does with the unmodified supabase-js what applications do, and prints one JSON line per thing told.
// Usage: node client_traps.mjs URL ANON_KEY TOKEN_OF_ALICE TOKEN_OF_BOB
// Reads commands from standard input, one a line; prints {"done": command} after each.
import { createInterface } from "node:readline";
import { createClient } from "@supabase/supabase-js";

const [url, anonKey, alice, bob] = process.argv.slice(2);
const say = (what) => process.stdout.write(JSON.stringify(what) + "\n");
// The callback is what the client asks again at every join and heartbeat; a token given by hand
// to setAuth would be forgotten there.
let current = null;
const client = createClient(url, anonKey, { accessToken: async () => current });
const speakFor = (token) => ((current = token), client.realtime.setAuth());
const notes = { event: "*", schema: "public", table: "notes" };
const channels = new Map();

function open(name, { config = {}, entries = [notes] } = {}) {
  const channel = client.channel(name, { config });
  entries.forEach((entry, place) =>
    channel.on("postgres_changes", entry, (change) =>
      say({ on: name, place, change: change.eventType, id: change.new.id ?? change.old.id }),
    ),
  );
  channel.on("system", {}, (system) => say({ on: name, system: system.message }));
  channel.on("broadcast", { event: "x" }, () => say({ on: name, broadcast: true }));
  channel.subscribe((status, error) => say({ on: name, status, error: error?.message }));
  channels.set(name, channel);
  return channel;
}

const commands = {
  anonymous: () => open("mine"),
  alice: () => speakFor(alice),
  bob: () => speakFor(bob),
  odd: () => [`a b/ç:*;%'"`, "realtime:twice", "{}[]\\", "*"].forEach((name) => open(name)),
  many: () => Array.from({ length: 60 }, (_, number) => open(`many ${number}`)),
  bindings: () =>
    open("bindings", {
      entries: [
        notes,
        notes,
        { ...notes, event: "INSERT" },
        { ...notes, event: "DELETE" },
        { ...notes, filter: "id=gt.100" },
        ...Array.from({ length: 40 }, (_, number) => ({ ...notes, filter: `id=eq.${number}` })),
      ],
    }),
  private: () => open("secret", { config: { private: true } }),
  push: async () => {
    const channel = open("pushing", { config: { broadcast: { ack: true } }, entries: [] });
    await new Promise((resolve) => channel.on("system", {}, resolve) && setTimeout(resolve, 500));
    say({ sent: await channel.send({ type: "broadcast", event: "x", payload: {} }) });
    say({ tracked: await channel.track({ here: true }) });
  },
  hasty: async () => {
    const channel = open("hasty");
    say({ unsubscribed: await channel.unsubscribe() });
  },
  again: async () => {
    say({ removed: await client.removeChannel(channels.get("mine")) });
    open("mine");
  },
  everything: async () => say({ removed: await client.removeAllChannels() }),
  end: () => process.exit(0),
};

for await (const command of createInterface({ input: process.stdin })) {
  await commands[command]();
  say({ done: command });
}
