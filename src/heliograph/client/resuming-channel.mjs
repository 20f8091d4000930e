/**
 * A channel of supabase-js that loses nothing: it goes on where it was after every disconnect.
 *
 *   const channel = new ResumingChannel(supabase.channel('orders'), { load });
 *   channel.on({ event: '*', schema: 'public', table: 'orders' }, apply).subscribe();
 *
 * Changes are handed on transaction by transaction, when the server has told the position behind
 * them; what came of a transaction that was cut off is dropped, because it comes again. `load` is
 * awaited whenever the server can not go on where the client was, and at the beginning; changes
 * that come meanwhile wait for it; if it fails it is called again. Keep `position` and give it as
 * `since` to go on after a reload of the page. Needs a Heliograph server (docs/howto/resume.md).
 */
export class ResumingChannel {
  #channel;
  #load;
  #since;
  #loading;
  /** Changes (with their callbacks) and positions, in the order in which they came. */
  #waiting = [];

  /**
   * @param channel A channel of supabase-js that nobody has subscribed yet.
   * @param options.load Called with the reason: loads the rows anew; may return a promise.
   * @param options.since The `position` of an earlier channel with the same entries and user.
   */
  constructor(channel, { load, since }) {
    this.#channel = channel;
    this.#load = load;
    this.#since = since;
    channel.on('system', {}, (message) => this.#told(message));
  }

  /** Everything up to here was handed on; undefined before the server has told a position. */
  get position() {
    return this.#since;
  }

  /** Listen to changes; `filter` as for `channel.on('postgres_changes', filter, …)`. */
  on(filter, callback) {
    const since = this.#since === undefined ? {} : { since: this.#since };
    const entry = { ...filter, positions: true, ...since };
    this.#channel.on('postgres_changes', entry, (change) => {
      this.#waiting.push({ callback, change });
    });
    return this;
  }

  subscribe(callback) {
    this.#channel.subscribe(callback);
    return this;
  }

  #told({ extension, message, position, reason }) {
    if (extension !== 'postgres_changes') return;
    if (message === 'Subscribed to PostgreSQL') {
      this.#waiting = [];
      if (this.#since === undefined) this.#reload('subscribed');
    } else if (message === 'resync') {
      this.#waiting = [{ position }];
      this.#reload(reason);
    } else if (message === 'position') {
      this.#waiting.push({ position });
      this.#release();
    }
  }

  #reload(reason) {
    const before = Promise.resolve(this.#loading).catch(() => undefined);
    const loading = before.then(() => this.#load(reason)).then(
      () => {
        if (this.#loading !== loading) return;
        this.#loading = undefined;
        this.#release();
      },
      (error) => {
        console.error(`load failed, again in 1 s: ${reason}`, error);
        setTimeout(() => this.#loading === loading && this.#reload(reason), 1000);
      },
    );
    this.#loading = loading;
  }

  #release() {
    if (this.#loading !== undefined) return;
    let left = this.#waiting.findLastIndex((entry) => entry.position !== undefined) + 1;
    for (; left > 0; left -= 1) {
      const { callback, change, position } = this.#waiting.shift();
      if (position === undefined) callback(change);
      else this.#remember(position);
    }
  }

  #remember(position) {
    this.#since = position;
    for (const { filter } of this.#channel.bindings.postgres_changes) filter.since = position;
  }
}
