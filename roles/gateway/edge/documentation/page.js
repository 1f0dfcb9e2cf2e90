const make = (name, text, parent) => { const e = document.createElement(name); if (text) e.textContent = text; parent.append(e); return e; };
const main = document.querySelector("main"), title = make("h1", "API", main);
const key = make("input", "", make("label", "Authorization header: ", main)), note = make("p", "", main), list = make("div", "", main);
key.placeholder = "Bearer … or ApiKey …"; key.autocomplete = "off"; key.spellcheck = false;
const credentials = () => (key.value ? { Authorization: key.value } : {});
const show = (path, method, operation) => {
  const box = make("details", "", list), line = make("summary", "", box);
  make("b", method.toUpperCase(), line).className = "method";
  make("code", path, line); make("span", " " + (operation.summary || ""), line);
  if (operation.description) make("p", operation.description, box);
  const fields = (operation.parameters || []).map((p) => {
    const label = make("label", `${p.name} (${p.in}${p.required ? ", required" : ""}) `, box);
    make("small", p.description || JSON.stringify(p.schema), label);
    return [p, make("input", "", label)];
  });
  const body = operation.requestBody && make("textarea", "", box);
  if (body) { make("pre", JSON.stringify(operation.requestBody, null, 1), box); body.value = "{}"; }
  const go = make("button", "Try", box), out = make("pre", "", box);
  go.onclick = async () => {
    let url = path; const query = new URLSearchParams(), headers = credentials();
    for (const [p, input] of fields) {
      if (p.in === "path") url = url.replace(`{${p.name}}`, encodeURIComponent(input.value));
      else if (input.value && p.in === "query") query.set(p.name, input.value);
      else if (input.value && p.in === "header") headers[p.name] = input.value;
    }
    if (body) headers["Content-Type"] = "application/json";
    const options = { method: method.toUpperCase(), headers, body: body ? body.value : undefined };
    const answer = await fetch(url + (query.size ? "?" + query : ""), options);
    out.textContent = answer.status + "\n" + await answer.text();
  };
};
let asked = 0;
const load = async () => {
  const turn = ++asked;
  let api = null, problem = "";
  try {
    const answer = await fetch("/openapi.json", { headers: credentials() });
    if (answer.ok) api = await answer.json(); else problem = `${answer.status} ${(await answer.json()).title}`;
  } catch (error) { problem = error.message; }
  // A slower answer to what was in the field before.
  if (turn !== asked) return;
  list.replaceChildren();
  if (api) title.textContent = api.info.title;
  for (const [path, methods] of Object.entries(api ? api.paths : {}))
    for (const [method, operation] of Object.entries(methods)) if (operation.responses) show(path, method, operation);
  note.textContent = problem || (list.children.length ? "" : "There is nothing here that you may call. ")
    + (key.value ? "" : "Endpoints that are not public may need an Authorization header to be shown.");
};
key.onchange = load;
load();
