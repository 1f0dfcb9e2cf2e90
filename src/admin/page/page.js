// The page at / of the admin listener: repeatedly requests the state of the fleet, and shows it.
"use strict";

/** The pause after a request while there is no data yet, in milliseconds. */
const FIRST_PAUSE = 500;
/** The longest wait for an answer, in milliseconds. */
const ANSWER_LIMIT = 10_000;
/** The number of intervals after which data is old. */
const OLD_INTERVALS = 3;
/** The number of characters of an id that are shown, as by `fjord status`. */
const ID_SHOWN = 8;
/** The number of processes or queues that a notice names. */
const NAMED_MAX = 3;

const one = (id) => document.getElementById(id);
const short = (id) => id.slice(0, ID_SHOWN);

/** The last data, and when it arrived, in milliseconds. */
let data = null;
let arrived = 0;
/** The reason why the last request failed; empty if it succeeded. */
let failure = "";
/** The queue whose history the charts show; empty for all. */
let queue = "";
let interval = 5;

/** A row of the table of processes: a process that replied, or one that did not. */
const isMissing = (row) => row.silent_seconds !== undefined;

function state(row) {
  if (isMissing(row)) {
    const since = format.uptime(row.silent_seconds);
    return row.was_draining ? `ended after a drain, ${since} ago` : `no reply for ${since}`;
  }
  const reasons = Object.entries(row.not_ready).map(([part, why]) => (part === "lifecycle" ? why : `${part}: ${why}`));
  reasons.push(...row.databases_down.map((name) => `database ${name} does not answer`));
  if (row.queues_served < row.queues) reasons.push(`serves ${row.queues_served} of ${row.queues} queues`);
  if (row.is_truncated) reasons.push(`${row.queues_omitted || "some"} queues do not fit into one message`);
  reasons.push(...row.changed_limits.map((queue) => `queue ${queue.name}: limit ${queue.limit} (configured ${queue.limit_configured})`));
  return reasons.length > 0 ? reasons.join("; ") : "ready";
}

function stateLevel(row) {
  if (isMissing(row)) return row.was_draining ? "warn" : "bad";
  return state(row) === "ready" ? "good" : "warn";
}

const number = (title, key, formatted, description) => ({
  title, key, kind: "number", description, text: (row) => known(formatted, key(row)),
});
const share = (used, limit) => (limit > 0 ? used / limit : null);
/** Marks values other than 0. */
const ifErrors = (column) => ({ ...column, level: (row) => (column.key(row) > 0 ? "bad" : "") });

/** Whether an operator has set a limit other than the configured one, for a queue in one worker or in all. */
const hasChangedLimit = (queue) => queue.limit !== queue.limit_configured;

const PROCESS_COLUMNS = [
  { title: "Role", key: (row) => row.role, text: (row) => row.role },
  { title: "Host", key: (row) => row.host, text: (row) => row.host, kind: "name", hover: (row) => row.host },
  { title: "Id", key: (row) => row.id, text: (row) => short(row.id), hover: (row) => row.id },
  { title: "Version", key: (row) => row.version, text: (row) => row.version },
  { title: "State", key: (row) => ["bad", "warn", "good"].indexOf(stateLevel(row)), text: state, level: stateLevel, kind: "wrap" },
  number("Up", (row) => row.uptime_seconds, format.uptime, "Time since the start"),
  number("Requests/s", (row) => row.calls_per_second, format.rate, "Requests that a gateway answered, or calls that a worker finished"),
  number("p50", (row) => row.p50_seconds, format.seconds, "From request to response, or the duration of calls"),
  number("p99", (row) => row.p99_seconds, format.seconds),
  ifErrors(number("Errors/s", (row) => row.errors_per_second, format.rate)),
  {
    title: "In use", kind: "number", description: "Slots of a worker in use, or requests in flight in a gateway, and the limit",
    key: (row) => (isMissing(row) ? null : share(row.in_flight, row.in_flight_max)),
    text: (row) => (isMissing(row) ? "–" : `${format.count(row.in_flight)} / ${format.count(row.in_flight_max)}`),
  },
  number("CPU", (row) => row.cpu_cores, format.percent, "100 % is one core"),
  number("Memory", (row) => row.memory_bytes, format.bytes),
];

const QUEUE_COLUMNS = [
  { title: "Queue", key: (row) => row.name, text: (row) => row.name, kind: "name", hover: (row) => row.name, action: (row) => select(row.name === queue ? "" : row.name), isPressed: (row) => row.name === queue },
  {
    title: "Workers", kind: "number", description: "Workers that serve the queue, and those in which an operator has paused it",
    key: (row) => row.workers, level: (row) => (row.paused > 0 ? "warn" : ""),
    text: (row) => `${format.count(row.workers)}${row.paused > 0 ? ` (${format.count(row.paused)} paused)` : ""}`,
  },
  {
    title: "In use", kind: "number", description: "Slots in use, and all slots; in parentheses, those in the configuration if an operator has changed the limit",
    key: (row) => row.running, level: (row) => (hasChangedLimit(row) ? "warn" : ""),
    text: (row) => `${format.count(row.running)} / ${format.count(row.limit)}${hasChangedLimit(row) ? ` (configured ${format.count(row.limit_configured)})` : ""}`,
  },
  { ...number("Used", (row) => row.utilization, format.percent, "Share of the slots in use"), level: (row) => (row.utilization > 0.8 ? "warn" : "") },
  { ...number("Full", (row) => row.saturated, format.percent, "Share of the time without a free slot"), level: (row) => (row.saturated >= 0.5 ? "bad" : "") },
  { ...number("Waiting", (row) => row.waiting, format.count, "Requests waiting for a slot"), level: (row) => (row.waiting > 0 ? "warn" : "") },
  number("Wait p99", (row) => row.wait_p99_seconds, format.seconds, "Until a worker accepts the request"),
  number("Requests/s", (row) => row.arrivals_per_second, format.rate, "Requests that arrive at the gateways"),
  number("p99", (row) => row.request_p99_seconds, format.seconds, "From request to response"),
  number("Calls/s", (row) => row.calls_per_second, format.rate, "Calls that the workers finished"),
  number("Call p50", (row) => row.p50_seconds, format.seconds, "Time that a call occupies its slot"),
  number("p99", (row) => row.p99_seconds, format.seconds, "Time that a call occupies its slot"),
  ifErrors(number("5xx/s", (row) => row.failed_per_second, format.rate, "Requests with a status of 500 to 599")),
  ifErrors(number("Failed/s", (row) => row.errors_per_second, format.rate, "Calls that failed")),
  { title: "Last error", key: (row) => row.last_error, text: (row) => row.last_error || "–", description: "The outcome of the last call that failed" },
];

const showCharts = createCharts(one("charts"));
/** How many rows of each table match its search, if not all. */
let foundQueues = "";
let foundProcesses = "";
const queues = new SortedTable(one("queues"), {
  columns: QUEUE_COLUMNS, id: (row) => row.name, order: (row) => row.name, words: (row) => `${row.name} ${row.last_error}`,
  sort: "Used", descending: true, search: one("queues-search"),
  note: (text) => { foundQueues = text; showQueuesNote(); },
});
const processes = new SortedTable(one("processes"), {
  columns: PROCESS_COLUMNS, id: (row) => row.id, order: (row) => `${row.role} ${row.host} ${row.id}`, words: (row) => `${row.role} ${row.host} ${row.id} ${row.version} ${state(row)}`,
  sort: "State", descending: false, search: one("processes-search"),
  note: (text) => { foundProcesses = text; showProcessesNote(); },
});

/** Shows how many processes have each state and version. */
function showProcessesNote() {
  if (!data?.bottleneck) return;
  const counted = (values) => {
    const counts = new Map();
    for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
    return [...counts].sort((a, b) => b[1] - a[1]).slice(0, NAMED_MAX).map(([value, count]) => `${count} ${value}`).join(", ");
  };
  const states = [...data.processes, ...data.missing].map((row) => {
    if (isMissing(row)) return row.was_draining ? "ended" : "without a reply";
    return state(row) === "ready" ? "ready" : "not ready";
  });
  const versions = data.processes.map((row) => `with version ${row.version}`);
  setText(one("processes-note"), `${counted(states)}; ${counted(versions)}. ${foundProcesses}`);
}

function showQueuesNote() {
  const hidden = data?.queues_hidden ?? 0;
  const more = hidden > 0 ? `${hidden} more queues with fewer requests are not shown; fjord status --json has all. ` : "";
  const none = data?.bottleneck && data.queues.length === 0 ? "No process has a queue. " : "";
  setText(one("queues-note"), (more + none + foundQueues).trim());
}

/** Lists the first few names, and says how many more there are. */
function named(names) {
  const others = names.length > NAMED_MAX ? ` and ${names.length - NAMED_MAX} more` : "";
  return names.slice(0, NAMED_MAX).join(", ") + others;
}

/** Returns the level and text of each notice. */
function notices(age) {
  const found = [];
  if (failure) found.push(["bad", `This process does not answer: ${failure}. The page shows the last data that it received.`]);
  if (!data) return found;
  const nats = {
    down: ["bad", "This process is not connected to NATS, so it can neither query the fleet nor serve requests."],
    subscription_refused: ["bad", "NATS refuses a subscription of this process: its log has the reason."],
    lame_duck: ["warn", "The NATS server of this process is about to stop. The process will connect to another."],
  }[data.nats];
  if (nats) found.push(nats);
  if (data.failure) found.push(["bad", `The last query failed: ${data.failure}.`]);
  if (!failure && age !== null && age > OLD_INTERVALS * data.interval_seconds) {
    found.push(["bad", "The data is old."]);
  }
  if (!data.covers_fleet) {
    found.push(["info", "The page shows only this process, because admin.fleet is false in its configuration. The page of a gateway shows the fleet."]);
  }
  const paused = data.queues.filter((row) => row.paused > 0);
  if (paused.length > 0) found.push(["info", `Paused by an operator: ${named(paused.map((row) => `${row.name} in ${row.paused} of ${row.workers} workers`))}.`]);
  const limited = data.queues.filter(hasChangedLimit);
  if (limited.length > 0) found.push(["info", `Limit changed by an operator: ${named(limited.map((row) => `${row.name} has ${row.limit} slots (configured ${row.limit_configured})`))}.`]);
  if (data.is_cut_off) found.push(["warn", "The fleet is too large for this page: some processes are missing."]);
  const silent = data.missing.filter((member) => !member.was_draining);
  if (silent.length > 0) {
    const members = silent.map((member) => `${member.role} ${short(member.id)} on ${member.host}`);
    const [verb, noun] = silent.length === 1 ? ["does", "process"] : ["do", "processes"];
    found.push(["bad", `${silent.length} ${noun} ${verb} not reply: ${named(members)}.`]);
  }
  return found;
}

function showNotices(found) {
  const list = one("notices");
  const items = found.map(([level, text]) => {
    const item = document.createElement("li");
    item.dataset.level = level;
    item.textContent = text;
    return item;
  });
  // A screen reader reads a notice only if it has changed.
  const same = items.length === list.children.length && items.every((item, n) => item.isEqualNode(list.children[n]));
  if (!same) list.replaceChildren(...items);
}

function showTotals() {
  const of = (role) => data.processes.filter((process) => process.role === role).length;
  const totals = data.totals;
  const values = [
    ["Gateways", format.count(of("gateway")), ""],
    ["Workers", format.count(of("worker")), ""],
    ["Requests", known(format.rate, totals.requests_per_second), "/s"],
    ["Request p99", known(format.seconds, totals.request_p99_seconds), ""],
    ["5xx", known(format.rate, totals.failed_per_second), "/s"],
    ["Slots in use", `${format.count(totals.running)} / ${format.count(totals.limit)}`, ""],
    ["Waiting", format.count(totals.waiting), ""],
  ];
  const list = one("totals");
  values.forEach(([name, value, unit], n) => {
    let entry = list.children[n];
    if (!entry) {
      entry = document.createElement("div");
      entry.append(document.createElement("dt"), document.createElement("dd"));
      list.append(entry);
    }
    setText(entry.firstChild, name);
    const small = document.createElement("small");
    small.textContent = unit;
    if (entry.lastChild.textContent !== value + unit) entry.lastChild.replaceChildren(value, small);
  });
}

function showQueueChoice() {
  const choice = one("queue");
  const names = data.queues.map((row) => row.name).sort((a, b) => a.localeCompare(b));
  if (queue && !names.includes(queue)) names.push(queue);
  const wanted = ["", ...names];
  const present = [...choice.options].map((option) => option.value);
  if (wanted.join("\n") !== present.join("\n")) {
    choice.replaceChildren(...wanted.map((name) => new Option(name || "all queues", name)));
  }
  choice.value = queue;
}

function chartsNote() {
  const history = data.history;
  if (!history.is_kept) return "There is no history of this queue: it has had no requests, or 100 other queues already have a history.";
  const oldest = data.history_seconds;
  if (oldest === null || oldest > 14.5 * 60) return "";
  return `The charts begin ${format.uptime(oldest)} ago, when this page was opened: nothing is collected while nobody is viewing the page.`;
}

function show() {
  const source = data.process;
  setText(one("source"), `as seen by ${source.role} ${short(source.id)} on ${source.host}, version ${source.version}`);
  if (!data.bottleneck) {
    setText(one("bottleneck"), "Collecting …");
    return;
  }
  setText(one("bottleneck"), data.bottleneck.sentence);
  one("bottleneck").dataset.kind = data.bottleneck.kind;
  document.title = `${data.bottleneck.kind === "none" ? "" : "▲ "}fjord fleet`;
  showTotals();
  showQueueChoice();
  if ((data.history.queue ?? "") === queue) {
    showCharts(data.history, arrived / 1e3);
    setText(one("charts-note"), chartsNote());
  }
  showQueuesNote();
  queues.show(data.queues);
  processes.show([...data.missing, ...data.processes]);
}

/** Shows how old the data is, every second. */
function showAge() {
  const waited = (Date.now() - arrived) / 1e3;
  const age = data?.age_seconds === null || !data ? null : data.age_seconds + waited;
  const isOld = Boolean(failure) || (data && (data.failure || (age !== null && age > OLD_INTERVALS * interval)));
  const updated = one("updated");
  if (age === null) {
    setText(updated, failure ? "no data" : "waiting for the first data");
  } else {
    setText(updated, `data from ${format.uptime(age)} ago`);
  }
  updated.dataset.state = isOld ? "old" : age === null ? "waiting" : "live";
  document.body.classList.toggle("is-old", Boolean(isOld) && age !== null);
  showNotices(notices(age));
}

function select(name) {
  queue = name;
  load();
}

/** The number of requests so far: an answer that is slower than a later one is ignored. */
let requests = 0;
let timer;
async function load() {
  const number = ++requests;
  clearTimeout(timer);
  try {
    const query = queue ? `?queue=${encodeURIComponent(queue)}` : "";
    const answer = await fetch(`fleet.json${query}`, { headers: { "Fjord-Page": "1" }, signal: AbortSignal.timeout(ANSWER_LIMIT) });
    if (!answer.ok) throw new Error(`the status is ${answer.status}`);
    const document = await answer.json();
    if (number !== requests) return;
    [data, arrived, failure, interval] = [document, Date.now(), "", document.interval_seconds];
    show();
  } catch (error) {
    if (number !== requests) return;
    failure = error.name === "TimeoutError" ? "no answer within 10 s" : error.message;
    if (!data) setText(one("bottleneck"), "There is no data.");
  }
  showAge();
  schedule();
}

/** Requests data only while the page is visible, because the process then queries the fleet. */
function schedule() {
  clearTimeout(timer);
  if (document.hidden) return;
  timer = setTimeout(load, data && !data.bottleneck ? FIRST_PAUSE : interval * 1e3);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) load();
});
one("queue").addEventListener("change", (event) => select(event.target.value));
setInterval(showAge, 1000);
load();
