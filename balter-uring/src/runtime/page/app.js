// The page of a node: what the cluster is, and how its runs are doing. Everything shown comes from the
// API that programs use as well, and is put in as text.

const at = (id) => document.getElementById(id);
const TOKEN = "balter-token";
const MOST_POINTS = 600;
const runs = new Map();

async function api(path, options = {}) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(path, { ...options, headers });
  if (response.status === 401) {
    at("locked").hidden = false;
    at("summary").textContent = "locked";
    throw new Error("the cluster asks for its token");
  }
  at("locked").hidden = true;
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new Error(problem.detail ?? `the node answered ${response.status}`);
  }
  return response;
}

const json = async (path) => (await api(path)).json();

function element(kind, text, name) {
  const made = document.createElement(kind);
  made.textContent = text;
  if (name) made.className = name;
  return made;
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

function time(seconds) {
  if (!(seconds > 0)) return "–";
  const [factor, unit] = seconds < 1e-3 ? [1e6, "µs"] : seconds < 1 ? [1e3, "ms"] : [1, "s"];
  return `${(seconds * factor).toPrecision(3)} ${unit}`;
}

const percent = (share) => `${Number((share * 100).toPrecision(6))} %`;

// ---- nodes and scenarios

async function cluster() {
  const [peers, scenarios] = await Promise.all([json("/peers"), json("/scenarios")]);
  const alive = peers.filter((peer) => peer.state === "alive");
  const cores = alive.reduce((sum, peer) => sum + peer.cores, 0);
  at("summary").textContent =
    `${alive.length} of ${peers.length} nodes alive, ${cores} cores, ${scenarios.length} scenarios`;
  at("nodes").replaceChildren(...peers.map((peer) => {
    const row = document.createElement("tr");
    const name = element("td", peer.is_self ? `${peer.name} (this one)` : peer.name);
    const state = element("td", "");
    state.append(element("span", peer.state, `state ${peer.state}`));
    if (peer.reason) state.append(` ${peer.reason}`);
    row.append(name, state, element("td", peer.cores, "number"), element("td", peer.version),
      element("td", peer.scenarios.join(", ")));
    return row;
  }));
  const select = document.forms.start.elements.name;
  const names = scenarios.map((scenario) => scenario.name).sort();
  if ([...select.options].map((option) => option.value).join() !== names.join()) {
    select.replaceChildren(...names.map((name) => new Option(name, name)));
  }
}

// ---- runs

function line(points, most, name) {
  const polyline = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  const width = Math.max(points.length - 1, 1);
  const place = (value, index) =>
    `${((index / width) * 400).toFixed(1)},${(116 - (value / most) * 110).toFixed(1)}`;
  polyline.setAttribute("points", points.map(place).join(" "));
  polyline.setAttribute("class", name);
  return polyline;
}

function chart(svg, a, b, label) {
  const most = Math.max(...a, ...b, 1e-9) * 1.05;
  svg.replaceChildren(line(b, most, "b"), line(a, most, "a"));
  const caption = svg.previousElementSibling;
  const top = caption.querySelector(".top") ?? caption.appendChild(element("span", "", "top"));
  top.textContent = `top ${label(most)}`;
}

function asked(request) {
  const words = [];
  if (request.concurrency) words.push(`${whole.format(request.concurrency)} instances, closed loop`);
  if (request.saturate) words.push("as much as is answered, closed loop");
  if (request.max_tps) words.push(`${whole.format(request.max_tps)} transactions/s at most`);
  if (request.error_rate) words.push(`errors at most ${percent(request.error_rate)}`);
  if (request.latency) {
    words.push(`${percent(request.latency.quantile)} within ${time(request.latency.latency)}`);
  }
  if (request.duration) words.push(`${request.duration} s`);
  if (request.args) words.push(JSON.stringify(request.args));
  return words.join(", ");
}

function show(run, view) {
  const { article } = run;
  const is_closed = Boolean(view.request.concurrency || view.request.saturate);
  const is_over = view.state === "finished" || view.state === "failed";
  article.dataset.state = view.state;
  article.querySelector("h3").textContent = `${view.request.name} ${view.id}`;
  const state = article.querySelector(".state");
  state.textContent = view.role === "worker" ? `${view.state}, part of ${view.coordinator}` : view.state;
  state.className = `state ${view.state}`;
  article.querySelector(".stop").hidden = is_over;
  article.querySelector(".asked").textContent = asked(view.request);
  const figures = [
    ["transactions/s", whole.format(view.tps)],
    ["asked for", is_closed ? "–" : whole.format(view.goal_tps)],
    ["median", time(view.response.p50)],
    ["99 %", time(view.response.p99)],
    ["errors", `${(view.error_rate * 100).toFixed(2)} %`],
    ["instances", whole.format(view.instances)],
    ["seconds", view.elapsed.toFixed(1)],
    ["succeeded", whole.format(view.counts.succeeded)],
    ["failed", whole.format(view.counts.failed)],
    ["missed", whole.format(view.counts.missed)],
  ];
  article.querySelector(".figures").replaceChildren(...figures.map(([name, value]) => {
    const group = document.createElement("div");
    group.append(element("dt", name), element("dd", value));
    group.dataset.figure = name;
    return group;
  }));
  if (!is_over || run.points.length === 0) {
    run.points.push([view.tps, view.goal_tps, view.response.p50 ?? 0, view.response.p99 ?? 0]);
    if (run.points.length > MOST_POINTS) run.points.shift();
  }
  const column = (index) => run.points.map((point) => point[index]);
  chart(article.querySelector(".tps"), column(0), column(1), (most) => `${whole.format(most)}/s`);
  chart(article.querySelector(".latency"), column(2), column(3), time);
  article.querySelector("tbody").replaceChildren(...view.nodes.map((node) => {
    const row = document.createElement("tr");
    const cell = element("td", "");
    cell.append(element("span", node.state, `state ${node.state}`));
    const numbers = [node.share_tps, node.instances, node.counts.succeeded, node.counts.failed, node.counts.missed];
    row.append(element("td", node.name), cell,
      ...numbers.map((number) => element("td", whole.format(number), "number")));
    return row;
  }));
  const notes = Object.entries(view.refused).map(([name, why]) => [`${name} takes no part: ${why}`]);
  for (const [name, count] of Object.entries(view.failures)) notes.push([`${whole.format(count)} failed: ${name}`]);
  if (view.verdict) notes.push([view.verdict]);
  if (view.distorted) notes.push(["Distorted: the nodes were late themselves", "bad"]);
  if (view.error) notes.push([view.error, "bad"]);
  article.querySelector(".notes").replaceChildren(...notes.map(([text, name]) => element("li", text, name)));
}

function add(view) {
  const article = at("run").content.firstElementChild.cloneNode(true);
  article.querySelector(".stop").addEventListener("click", () => {
    api(`/runs/${view.id}/stop`, { method: "POST" }).catch(complain);
  });
  at("runs").prepend(article);
  at("no-runs").hidden = true;
  const run = { article, points: [] };
  runs.set(view.id, run);
  show(run, view);
  if (view.state !== "finished" && view.state !== "failed") follow(run, view.id).catch(complain);
}

// `EventSource` cannot send the token.
async function follow(run, id) {
  const response = await api(`/runs/${id}/events`);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const data = event.split("\n").filter((row) => row.startsWith("data:")).map((row) => row.slice(5));
      if (data.length > 0) show(run, JSON.parse(data.join("\n")));
    }
  }
  show(run, await json(`/runs/${id}`));
}

function complain(error) {
  at("problem").textContent = error.message;
  at("problem").hidden = false;
}

function choose() {
  for (const fields of document.forms.start.querySelectorAll("fieldset")) {
    fields.hidden = fields.dataset.load !== document.forms.start.elements.load.value;
    fields.disabled = fields.hidden;
  }
}
document.forms.start.elements.load.addEventListener("change", choose);
choose();

document.forms.start.addEventListener("submit", async (event) => {
  event.preventDefault();
  at("problem").hidden = true;
  const given = Object.fromEntries(new FormData(event.target));
  const request = { name: given.name };
  // Fields of other loads are disabled, and not given.
  for (const field of ["duration", "max_tps", "error_rate", "concurrency"]) {
    if (given[field]) request[field] = Number(given[field]);
  }
  if (given.load === "saturate") request.saturate = true;
  if (given.latency) request.latency = { latency: given.latency, quantile: given.quantile };
  try {
    if (given.args.trim() !== "") request.args = JSON.parse(given.args);
    await api("/run", {
      method: "POST",
      headers: { "Content-Type": "application/json", "Idempotency-Key": crypto.randomUUID?.() ?? `${Math.random()}` },
      body: JSON.stringify(request),
    });
    await refresh();
  } catch (error) {
    complain(error);
  }
});

at("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, at("token").value);
  at("token").value = "";
  refresh().catch(complain);
});

async function refresh() {
  await cluster();
  for (const view of await json("/runs")) {
    if (!runs.has(view.id)) add(view);
  }
}

async function forever() {
  for (;;) {
    try {
      await refresh();
    } catch (error) {
      if (at("locked").hidden) at("summary").textContent = `the node does not answer: ${error.message}`;
    }
    await new Promise((done) => setTimeout(done, 2000));
  }
}
forever();
