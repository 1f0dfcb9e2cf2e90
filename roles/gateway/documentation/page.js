const make = (name, text, parent) => { const e = document.createElement(name); if (text) e.textContent = text; parent.append(e); return e; };
const main = document.querySelector("main");
fetch("/openapi.json").then((r) => r.json()).then((api) => {
  make("h1", api.info.title, main);
  const key = make("input", "", make("label", "Authorization header: ", main));
  for (const [path, methods] of Object.entries(api.paths)) for (const [method, operation] of Object.entries(methods)) {
    if (!operation.responses) continue;
    const box = make("details", "", main), line = make("summary", "", box);
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
      let url = path; const query = new URLSearchParams(), headers = {};
      for (const [p, input] of fields) {
        if (p.in === "path") url = url.replace(`{${p.name}}`, encodeURIComponent(input.value));
        else if (input.value && p.in === "query") query.set(p.name, input.value);
        else if (input.value && p.in === "header") headers[p.name] = input.value;
      }
      if (key.value) headers.Authorization = key.value;
      if (body) headers["Content-Type"] = "application/json";
      const options = { method: method.toUpperCase(), headers, body: body ? body.value : undefined };
      const answer = await fetch(url + (query.size ? "?" + query : ""), options);
      out.textContent = answer.status + "\n" + await answer.text();
    };
  }
});
