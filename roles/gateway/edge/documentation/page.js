// The page at /docs. Swagger UI shows the selected operations; it would take minutes to show thousands of them.
"use strict";

/** The number of operations that Swagger UI shows at first, and of those that "Show more" adds. */
const STEP = 50;
/** The pause after a keystroke before the search runs, in milliseconds. */
const SEARCH_DELAY = 150;
/** The tag of operations without a tag, as Swagger UI names it. */
const NO_TAG = "default";

const [search, tags, note, more] = ["search", "tags", "note", "more"].map((id) => document.getElementById(id));
/** The address of the API: the page's own, without its last segment. */
const base = new URL(".", location.href).href.replace(/\/$/, "");

/** The OpenAPI document, and its operations as {path, method, tags, text}. */
let api = null;
let operations = [];
/** The selected tag, or null for all. */
let tag = null;
/** The maximum number of operations that are shown. */
let limit = STEP;
let ui = null;

function readOperations() {
  const found = [];
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      if (!operation.responses) continue;
      const tags = operation.tags?.length ? operation.tags : [NO_TAG];
      const words = [method, path, operation.operationId, operation.summary, operation.description, ...tags];
      found.push({ path, method, tags, text: words.join(" ").toLowerCase() });
    }
  }
  // Stable: the operations of a tag stay in the order of the document.
  return found.sort((one, other) => one.tags[0].localeCompare(other.tags[0]));
}

function matching() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  return operations.filter((one) => words.every((word) => one.text.includes(word)));
}

/** Returns the document with only these operations. */
function documentWith(shown) {
  const paths = {};
  for (const { path, method } of shown) {
    paths[path] ??= {};
    paths[path][method] = api.paths[path][method];
  }
  // Swagger UI also shows described tags that have no operations.
  const names = new Set(shown.flatMap((one) => one.tags));
  const described = api.tags?.filter((one) => names.has(one.name));
  return { ...api, paths, tags: described, servers: [{ url: base }] };
}

function button(label, count, value) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  const number = document.createElement("span");
  button.append(label, number);
  number.textContent = count;
  button.setAttribute("aria-pressed", String(value === tag));
  button.addEventListener("click", () => select(value));
  item.append(button);
  return item;
}

function select(value) {
  tag = value;
  limit = STEP;
  scrollTo(0, 0);
  render();
}

function render() {
  const found = matching();
  const counts = new Map();
  for (const one of found) for (const name of one.tags) counts.set(name, (counts.get(name) ?? 0) + 1);
  if (tag !== null && !counts.has(tag)) tag = null;
  const names = [...counts.keys()].sort((a, b) => a.localeCompare(b));
  tags.replaceChildren(button("All", found.length, null), ...names.map((name) => button(name, counts.get(name), name)));

  const selected = tag === null ? found : found.filter((one) => one.tags.includes(tag));
  const shown = selected.slice(0, limit);
  more.hidden = shown.length === selected.length;
  if (operations.length === 0) {
    note.textContent = "The document has no operations that you may call. Authorize to see those that need credentials.";
  } else if (shown.length < selected.length) {
    note.textContent = `The first ${shown.length} of ${selected.length} operations. Select a tag, or search.`;
  } else {
    note.textContent = selected.length === 0 ? "No operation matches." : "";
  }
  show(documentWith(shown));
}

function show(shown) {
  if (ui) {
    ui.specActions.updateJsonSpec(shown);
    return;
  }
  ui = SwaggerUIBundle({
    dom_id: "#swagger-ui",
    spec: shown,
    plugins: [reloadOnAuthorization],
    docExpansion: "list",
    defaultModelsExpandDepth: -1,
    defaultModelExpandDepth: 3,
    displayRequestDuration: true,
    tryItOutEnabled: true,
    deepLinking: true,
    validatorUrl: null,
    persistAuthorization: false,
    requestInterceptor: addCredentials,
  });
}

/** Returns the headers with the credentials that the user has entered. */
function credentials() {
  const headers = {};
  const entered = ui?.authSelectors.authorized()?.toJS() ?? {};
  for (const { schema, value } of Object.values(entered)) {
    if (!value) continue;
    if (schema?.type === "http") headers.Authorization = `Bearer ${value}`;
    if (schema?.type === "apiKey") headers[schema.name] = value;
  }
  return headers;
}

/** Adds the credentials even if they were entered for another scheme, such as the tokens of any issuer. */
function addCredentials(request) {
  const entered = credentials();
  const names = new Set(Object.keys(request.headers).map((name) => name.toLowerCase()));
  if (!Object.keys(entered).some((name) => names.has(name.toLowerCase()))) {
    Object.assign(request.headers, entered);
  }
  return request;
}

/** Loads the document again after the user has entered or removed credentials, because it can depend on them. */
function reloadOnAuthorization() {
  const andReload = (original) => (...values) => {
    const result = original(...values);
    load();
    return result;
  };
  return { statePlugins: { auth: { wrapActions: { authorize: andReload, logout: andReload } } } };
}

let loads = 0;
async function load() {
  const number = ++loads;
  let loaded = null;
  let problem = "";
  try {
    const answer = await fetch("openapi.json", { headers: credentials() });
    const body = await answer.json();
    if (answer.ok) loaded = body;
    else problem = `${answer.status} ${body.title}: ${body.detail ?? ""}`;
  } catch (error) {
    problem = `The document cannot be loaded: ${error.message}`;
  }
  // Ignores an answer that is slower than a later one.
  if (number !== loads) return;
  if (loaded) {
    api = loaded;
    operations = readOperations();
    document.title = api.info.title;
    render();
  }
  if (problem) note.textContent = problem;
}

/** Selects the tag of a link such as `#/tag/operation`, which Swagger UI then opens. */
function followLink() {
  let parts;
  try {
    parts = location.hash.split("/").map(decodeURIComponent);
  } catch {
    return; // The link is not percent-encoded correctly.
  }
  const [, name, operation] = parts;
  if (name) tag = name;
  if (operation) search.value = operation;
}

let pause;
search.addEventListener("input", () => {
  clearTimeout(pause);
  pause = setTimeout(() => {
    limit = STEP;
    render();
  }, SEARCH_DELAY);
});
more.addEventListener("click", () => {
  limit += STEP;
  render();
});
followLink();
load();
