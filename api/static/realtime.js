/**
 * A client of `/ws/<team_id>` for browsers (docs/realtime.md), without dependencies.
 *
 *   import { TeamSocket, ticketsFrom } from "/static/realtime.js";
 *   const team = new TeamSocket(location.origin, teamId, { ticket: ticketsFrom(location.origin, teamId, () => token) });
 *   team.addEventListener("event", ({ detail }) => console.log(detail.seq, detail.type));
 *   team.open();
 *
 * Whatever cuts the connection, it comes back and asks for what it missed: each event is shown once, in order.
 */

const WELCOME_WITHIN_MS = 20_000;
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 30_000;
const CALM_DOWN_MS = [5_000, 15_000]; // the pause of a client that was told to send less
const LARGEST_MESSAGE = 16 * 1024;
const POLICY_VIOLATION = 1008;
const ACCESS_REVOKED = 4001;
const TOO_MANY_MESSAGES = 4029;

/** The server does not let this user into the team, or not any more. */
export class Refused extends Error {
  constructor(code, reason = "") {
    super(`${code} ${reason}`.trim());
    this.name = "Refused";
    this.code = code;
    this.reason = reason;
  }
}

/** A `ticket` callback that asks the API; `token()` gives (or promises) the session's token. */
export function ticketsFrom(origin, teamId, token) {
  return async () => {
    const response = await fetch(`${origin}/api/v1/teams/${teamId}/ws-tickets`, {
      method: "POST",
      headers: { Authorization: `Bearer ${await token()}` },
      signal: AbortSignal.timeout(WELCOME_WITHIN_MS),
    });
    if (response.ok) return (await response.json()).ticket;
    if ([401, 403, 404].includes(response.status)) throw new Refused(response.status, response.statusText);
    throw new Error(`No ticket: ${response.status}`);
  };
}

/**
 * A team's frames, as events whose `detail` is the frame of docs/realtime.md:
 *
 *   event      of the log, by number, without gap or repeat (`redacted` in the place of a hidden one)
 *   message    of a client; not sent again after a cut
 *   presence   `people` has changed: a Map from user_id to {state, devices}
 *   welcome    connected; `people` is new
 *   reset      what happened in between can't be replayed: refetch over REST
 *   error, pong   answers to one's own messages
 *   status     `detail` is "connecting", "connected", "waiting" (for `nextAttemptMs`) or "closed"
 *   refused    `detail` is the Refused; it is over
 *
 * `ticket()` promises a ticket and is asked before each connect. A Refused from it ends the socket; after any other error it
 * is asked again, later.
 */
export class TeamSocket extends EventTarget {
  /** `lastSeq`: the last event seen earlier, to go on after it; null: from now on. */
  constructor(origin, teamId, options) {
    super();
    this.lastSeq = options.lastSeq ?? null;
    this.people = new Map();
    this.status = "closed";
    this._url = `${origin.replace(/^http/, "ws").replace(/\/+$/, "")}/ws/${teamId}`;
    this._options = { echo: true, longestPauseMs: LONGEST_PAUSE_MS, WebSocket: globalThis.WebSocket, ...options };
    this._failures = 0;
    this._refusals = 0; // since the last welcome
    this._attempt = 0; // what belongs to an earlier one is ignored
    this._socket = null;
    this._timer = null;
    this._state = null;
    this._hurry = () => this.status === "waiting" && this._connect();
  }

  /** Connects, and stays connected until `close`. Returns itself. */
  open() {
    if (this.status === "closed") {
      globalThis.addEventListener?.("online", this._hurry);
      this._connect();
    }
    return this;
  }

  /** Sends a message to the team's clients; false if there is no connection at the moment. */
  send(type, data = null) {
    const text = JSON.stringify({ type, data });
    if (new TextEncoder().encode(text).length > LARGEST_MESSAGE) {
      throw new RangeError(`A message has at most ${LARGEST_MESSAGE} bytes.`);
    }
    if (this._socket?.readyState !== 1) return false;
    this._socket.send(text);
    return true;
  }

  /** One's presence from now on (`online`, `away`, …), told again after each connect. */
  setState(state) {
    this._state = state;
    this.send("presence", { state });
  }

  /** Ends the connection; `open` begins again after `lastSeq`. */
  close() {
    globalThis.removeEventListener?.("online", this._hurry);
    this._drop();
    this._become("closed");
  }

  async _connect() {
    const attempt = this._drop();
    this._become("connecting");
    let ticket;
    try {
      ticket = await this._options.ticket();
    } catch (error) {
      if (attempt !== this._attempt) return;
      if (error instanceof Refused) this._refuse(error);
      else this._wait();
      return;
    }
    if (attempt === this._attempt) this._listen(attempt, ticket);
  }

  _listen(attempt, ticket) {
    const query = `?ticket=${encodeURIComponent(ticket)}${this._options.echo ? "" : "&echo=false"}`;
    const socket = (this._socket = new this._options.WebSocket(this._url + query));
    const ours = (react) => (event) => attempt === this._attempt && react(event);
    this._patienceMs = WELCOME_WITHIN_MS;
    this._resuming = this.lastSeq !== null; // what comes before the welcome will come again
    this._expectLife();
    socket.onopen = ours(() => {
      this.send("hello", { last_seq: this.lastSeq });
      if (this._state !== null) this.setState(this._state);
    });
    socket.onmessage = ours(({ data }) => {
      this._expectLife();
      this._take(JSON.parse(data));
    });
    socket.onclose = ours(({ code, reason }) => this._recover(code, reason));
    socket.onerror = () => {}; // onclose follows
  }

  _take(frame) {
    // A client may call its message anything, `reset` too.
    if (frame.origin !== "server") this._show("message", frame);
    else if ("seq" in frame) this._takeEvent(frame);
    else if (frame.type === "heartbeat") this._expect(frame.data.seq);
    else if (frame.type.startsWith("presence_")) this._takePresence(frame);
    else {
      if (frame.type === "welcome") this._welcomed(frame.data);
      if (frame.type === "reset") this.lastSeq = frame.data.seq;
      this._show(frame.type, frame);
    }
  }

  _takeEvent(frame) {
    if (this._resuming || (this.lastSeq !== null && frame.seq <= this.lastSeq) || !this._expect(frame.seq - 1)) return;
    this.lastSeq = frame.seq;
    this._show("event", frame);
  }

  _takePresence(frame) {
    if (frame.type === "presence_left") this.people.delete(frame.user_id);
    else this.people.set(frame.user_id, frame.data);
    this._show("presence", frame);
  }

  _welcomed({ seq, presence, heartbeat_s: heartbeatS }) {
    this.lastSeq ??= seq;
    this._resuming = false;
    this._patienceMs = 2000 * heartbeatS;
    this._failures = this._refusals = 0;
    this.people = new Map(presence.map(({ user_id: userId, ...rest }) => [userId, rest]));
    this._expectLife();
    this._become("connected");
  }

  /** Whether all events up to this one have come; else they are fetched by connecting again. */
  _expect(seq) {
    const complete = this.lastSeq === null || seq <= this.lastSeq;
    if (!complete) this._wait();
    return complete;
  }

  /** A connection that stays silent is given up. */
  _expectLife() {
    clearTimeout(this._timer);
    this._timer = setTimeout(() => this._wait(), this._patienceMs);
  }

  _recover(code, reason) {
    if (code !== POLICY_VIOLATION && code !== ACCESS_REVOKED) this._wait(code);
    else if (this._refusals++) this._refuse(new Refused(code, reason));
    else this._connect(); // once: a new ticket may come from a new session
  }

  /** Connects again after a pause of full jitter. */
  _wait(code) {
    this._drop();
    const limit = Math.min(this._options.longestPauseMs, FIRST_PAUSE_MS * 2 ** Math.min(this._failures++, 16));
    const calm = code === TOO_MANY_MESSAGES ? between(...CALM_DOWN_MS) : 0;
    this.nextAttemptMs = calm + between(0, limit);
    this._timer = setTimeout(() => this._connect(), this.nextAttemptMs);
    this._become("waiting");
  }

  _refuse(refused) {
    this.close();
    this._show("refused", refused);
  }

  /** Forgets the present connection or attempt; returns the number of the next. */
  _drop() {
    clearTimeout(this._timer);
    this._socket?.close(); // which may take long to be told: nobody waits for it
    this._socket = null;
    return ++this._attempt;
  }

  _become(status) {
    if (status === this.status) return;
    this.status = status;
    this._show("status", status);
  }

  _show(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

function between(low, high) {
  return low + Math.random() * (high - low);
}
