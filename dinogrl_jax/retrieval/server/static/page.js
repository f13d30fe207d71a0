"use strict";
// Text from the server becomes text nodes, never markup.

const $ = (id) => document.getElementById(id);
const KEY = "token";
const MOST_FRAMES = 12; // of a tracklet that is opened
const MOST_SHOWN = 6; // of the query
const LONGEST_NAME = 26; // letters, from the end
let chosen = [];
let asking = null;
const urls = { query: [], results: [] };

function made(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function forget(kind) {
  urls[kind].splice(0).forEach((url) => URL.revokeObjectURL(url));
}

function picture(kind, blob, text) {
  const url = URL.createObjectURL(blob);
  urls[kind].push(url);
  return made("img", { src: url, alt: text });
}

// An answer of the server; asks for the token where it is wanted. Errors have one line.
async function answer(path, options = {}) {
  for (let tries = 0; ; tries += 1) {
    const token = sessionStorage.getItem(KEY);
    const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch {
      throw new Error("the server does not answer, or refuses so large an upload");
    }
    if (response.status === 401) {
      if (sessionStorage.getItem(KEY) === token) sessionStorage.removeItem(KEY);
      if (!sessionStorage.getItem(KEY)) await askToken(token !== null);
      continue;
    }
    if (!response.ok) {
      const line = await response.json().then((x) => x.detail, () => response.statusText);
      throw new Error(line);
    }
    return response;
  }
}

function askToken(again) {
  asking ??= new Promise((done) => {
    $("wrong").textContent = again ? "That was not the token" : "";
    $("ask").showModal();
    $("token").onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(KEY, $("secret").value.trim());
      $("secret").value = "";
      $("ask").close();
      asking = null;
      done();
    };
  });
  return asking;
}

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

function count(number, word) {
  return `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
}

async function showGallery() {
  const gallery = await (await answer("gallery")).json();
  $("gallery").textContent = `${count(gallery.tracklets, "tracklet")} by ${gallery.model}`;
  $("note").textContent = gallery.note;
  for (const camera of gallery.cameras) {
    const box = made("input", { type: "checkbox", name: "cameras", value: camera });
    $("cameras").append(made("label", {}, box, ` ${camera || "unknown"}`));
  }
  $("cameras").hidden = gallery.cameras.length < 2;
}

function choose(files) {
  const order = new Intl.Collator("en", { numeric: true }).compare;
  chosen = [...files].sort((a, b) => order(a.name, b.name));
  forget("query");
  $("preview").replaceChildren();
  const size = chosen.reduce((sum, file) => sum + file.size, 0) / 2 ** 10;
  const names = chosen.length > 1 ? `${chosen[0].name} to ${chosen.at(-1).name}` : chosen[0]?.name;
  const large = size >= 1024 ? `${(size / 1024).toFixed(1)} MiB` : `${Math.ceil(size)} KiB`;
  $("chosen").textContent = chosen.length
    ? `${count(chosen.length, "file")}, ${names}, ${large}`
    : "Nothing is chosen";
  const step = Math.max(1, Math.ceil(chosen.length / MOST_SHOWN));
  chosen.filter((file, i) => i % step === 0 && file.type.startsWith("image/")).forEach((file) => {
    $("preview").append(picture("query", file, ""));
  });
}

// The form as the API takes it; a line of what is missing instead.
function asked() {
  const form = $("search");
  const body = new FormData();
  chosen.forEach((file) => body.append("files", file));
  const modality = form.elements.modality.value;
  const where = [...form.querySelectorAll("[name=modalities]:checked")];
  if (!chosen.length) return "Choose a clip first";
  if (!modality) return "Say in which light the clip was filmed";
  if (!where.length) return "Say in which light to search";
  body.append("modality", modality);
  if (where.length === 1) body.append("modalities", where[0].value);
  form.querySelectorAll("[name=cameras]:checked").forEach((x) => body.append("cameras", x.value));
  for (const name of ["since", "until"]) {
    const value = form.elements[name].value;
    if (value) body.append(name, new Date(value).toISOString());
  }
  body.append("k", form.elements.k.value || "20");
  return body;
}

async function search(event) {
  event.preventDefault();
  const body = asked();
  if (typeof body === "string") {
    say(body, true);
    return;
  }
  const button = $("search").querySelector("button.main");
  button.disabled = true;
  say("Searching");
  try {
    const found = await (await answer("search", { method: "POST", body })).json();
    forget("results");
    $("list").replaceChildren(...found.found.map((one, i) => card(found.query, one, i + 1)));
    $("results").hidden = !found.found.length;
    const first = found.found[0];
    say(
      first
        ? `${count(found.found.length, "tracklet")} of ${count(found.tracklets, "tracklet")}; ` +
            `the nearest at ${distance(first)}`
        : "No tracklet fits these filters",
    );
  } catch (error) {
    say(error.message, true);
  } finally {
    button.disabled = false;
    button.focus({ preventScroll: true });
  }
}

function distance(one) {
  return Number(one.distance.toPrecision(4)).toString();
}

function shortened(name) {
  return name.length > LONGEST_NAME ? `…${name.slice(-LONGEST_NAME)}` : name;
}

function time(seconds) {
  const date = new Date(seconds * 1000);
  return Number.isNaN(date.getTime()) ? `${seconds} s` : date.toLocaleString();
}

function card(query, one, rank) {
  const name = one.name || `tracklet ${one.place}`;
  const facts = made("dl");
  const rows = [
    ["false accepts", one.meaning],
    ["identity", one.identity || "unknown"],
    ["camera", one.camera || "unknown"],
    ["light", one.modality],
    ...(one.time === null ? [] : [["time", time(one.time)]]),
    ["tracklet", shortened(name)],
  ];
  rows.forEach(([key, value]) => facts.append(made("dt", {}, key), made("dd", {}, value)));
  const frame = made("div", { class: "picture" }, made("span", { class: "soft" }, "no picture"));
  answer(`tracklets/${one.place}/thumbnail`)
    .then((x) => x.blob())
    .then((x) => frame.replaceChildren(picture("results", x, `${rank}: ${name}`)), () => {});
  const title = made("h3", {}, `${rank}: ${distance(one)}`);
  const parts = [frame, title, facts, answers(query, one, rank)];
  if (one.frames) parts.push(frames(one, rank));
  const about = { "aria-label": `rank ${rank}, ${name}`, title: name };
  return made("li", {}, made("article", about, ...parts));
}

function answers(query, one, rank) {
  const row = made("div", { class: "say", role: "group", "aria-label": `rank ${rank} is` });
  const buttons = ["same", "other"].map((label) => {
    const pressed = String(one.label === label);
    const button = made("button", { type: "button", class: label, "aria-pressed": pressed });
    button.textContent = label === "same" ? "Same person" : "Other person";
    button.addEventListener("click", async () => {
      const value = button.getAttribute("aria-pressed") === "true" ? null : label;
      const body = JSON.stringify({ query, place: one.place, label: value });
      try {
        const headers = { "Content-Type": "application/json" };
        await answer("labels", { method: "PUT", body, headers });
        buttons.forEach((x) => x.setAttribute("aria-pressed", String(x === button && !!value)));
        say(value ? `Rank ${rank} is kept as ${label} person` : `Rank ${rank} has no answer now`);
      } catch (error) {
        say(error.message, true);
      }
    });
    return button;
  });
  row.append(...buttons);
  return row;
}

function frames(one, rank) {
  const strip = made("div", { class: "strip" });
  const box = made("details", {}, made("summary", {}, count(one.frames, "frame")), strip);
  box.addEventListener("toggle", async () => {
    if (!box.open || strip.childElementCount) return;
    const shown = Math.min(one.frames, MOST_FRAMES);
    for (let i = 0; i < shown && box.open; i += 1) {
      const number = Math.floor((i * one.frames) / shown);
      try {
        const blob = await (await answer(`tracklets/${one.place}/frames/${number}`)).blob();
        strip.append(picture("results", blob, `rank ${rank}, frame ${number + 1}`));
      } catch (error) {
        strip.append(made("p", { class: "bad" }, error.message));
        break;
      }
    }
  });
  return box;
}

$("search").addEventListener("submit", search);
$("ask").addEventListener("cancel", (event) => event.preventDefault());
$("files").addEventListener("change", () => choose($("files").files));
for (const kind of ["dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") choose(event.dataTransfer.files);
  });
}
showGallery().catch((error) => say(error.message, true));
