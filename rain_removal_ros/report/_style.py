"""The style and the small scripts of a page, embedded so that it is one file."""

from __future__ import annotations

COLOURS = """
:root {
  --paper: #fcfcfb; --ink: #1d2129; --quiet: #5c6370; --line: #d9dbe0; --panel: #f1f2f4;
  --link: #0b5cad; --c0: #0b5cad; --c1: #c2410c; --c2: #0f766e; --c3: #8b3fa8; --c4: #8a6d00;
  --c5: #4b5563;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #14161a; --ink: #e8e9ec; --quiet: #a0a6b1; --line: #353a43; --panel: #1e2127;
    --link: #7cb7f7; --c0: #6cb0f5; --c1: #f59558; --c2: #4fc4b7; --c3: #cd92e6; --c4: #dcbb4a;
    --c5: #b3b9c4;
  }
}
"""

MARKS = """
.plot text { fill: var(--quiet); font: 12px system-ui, "Segoe UI", "Noto Sans", sans-serif; }
.plot .title { fill: var(--ink); font-size: 13px; font-weight: 600; }
.plot .over { paint-order: stroke; stroke: var(--paper); stroke-width: 4px; }
.plot .grid { stroke: var(--line); stroke-width: 1; }
.plot .guide { stroke: var(--quiet); stroke-width: 1; stroke-dasharray: 4 3; }
.plot polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
.k0 { --k: var(--c0); } .k1 { --k: var(--c1); } .k2 { --k: var(--c2); }
.k3 { --k: var(--c3); } .k4 { --k: var(--c4); } .k5 { --k: var(--c5); }
.plot .k { stroke: var(--k); }
.plot .dot { fill: var(--k); fill-opacity: .55; stroke: var(--k); stroke-width: 1; }
.plot .bar { fill: var(--k); fill-opacity: .45; stroke: var(--k); stroke-width: 1; }
"""
"""The style within a plot, so that a plot can also be a file of its own."""

_LAYOUT = """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "Noto Sans", sans-serif;
}
main { max-width: 72rem; margin: 0 auto; padding: 1.5rem max(1rem, 3vw) 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p { max-width: 46rem; margin: .5rem 0; }
.lead { color: var(--quiet); margin: 0; }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--quiet); padding-bottom: .4rem; }
th, td { padding: .35rem .8rem; text-align: left; white-space: nowrap; }
th:first-child, td:first-child { padding-left: 0; }
th { font-weight: 600; color: var(--quiet); border-bottom: 1px solid var(--line); }
td { border-bottom: 1px solid var(--line); }
.number { text-align: right; }
.tiles { display: flex; flex-wrap: wrap; gap: .75rem; margin: .75rem 0; }
.tiles div { background: var(--panel); border-radius: .5rem; padding: .6rem 1rem; min-width: 8rem; }
.tiles dt { color: var(--quiet); font-size: .85rem; }
.tiles dd { margin: 0; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.facts {
  display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; font-size: .92rem;
}
.facts dt { color: var(--quiet); }
.facts dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
details { margin: .75rem 0; }
summary { cursor: pointer; color: var(--link); }
figure { margin: 0; min-width: 0; }
figcaption { font-size: .9rem; color: var(--quiet); margin-top: .3rem; overflow-wrap: anywhere; }
img { display: block; width: 100%; height: auto; }
.beside, .gallery { display: grid; gap: 1.5rem; margin: 1rem 0; }
.beside { grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); }
.gallery { grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); }
.plot { max-width: 32rem; }
.plot svg { display: block; width: 100%; height: auto; }
.plot .legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; margin: 0 0 0 .6rem; }
.plot .legend svg { display: inline-block; width: 1.5rem; height: .7rem; margin-right: .35rem; }
.slider .frame {
  position: relative; overflow: hidden; border-radius: .35rem; background: var(--panel);
  touch-action: pan-y; cursor: ew-resize; user-select: none; -webkit-user-select: none;
}
.slider .frame img { pointer-events: none; }
.slider .after, .slider .layer { position: absolute; inset: 0; height: 100%; }
.slider .after { clip-path: inset(0 0 0 var(--at, 50%)); }
.slider .layer[hidden] { display: none; }
.slider .bar {
  position: absolute; top: 0; bottom: 0; left: var(--at, 50%); width: 2px; margin-left: -1px;
  background: #fff; box-shadow: 0 0 3px #000a; pointer-events: none;
}
.slider .bar::after {
  content: "\\2039\\a0\\203a"; position: absolute; top: 50%; left: 50%; width: 2rem; height: 2rem;
  transform: translate(-50%, -50%); border-radius: 50%; background: #fff; color: #1d2129;
  text-align: center; font: 600 1.1rem/1.75rem system-ui, sans-serif; box-shadow: 0 0 4px #0008;
}
.slider input { position: absolute; inset: 0; opacity: 0; pointer-events: none; }
.slider input:focus-visible ~ .bar { outline: 3px solid var(--link); }
.slider .name {
  position: absolute; bottom: .4rem; padding: 0 .45rem; border-radius: .25rem; color: #fff;
  background: #000a; font-size: .8rem; pointer-events: none;
}
.slider .name.left { left: .4rem; } .slider .name.right { right: .4rem; }
.slider button {
  font: inherit; font-size: .85rem; color: var(--link); background: none; padding: .15rem .6rem;
  border: 1px solid var(--line); border-radius: 1rem; margin: .4rem .4rem 0 0; cursor: pointer;
}
.slider button[aria-pressed="true"] { background: var(--link); color: var(--paper); }
@media print {
  :root { --paper: #fff; }
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  h2, h3 { break-after: avoid; }
  figure, .tiles, tr { break-inside: avoid; }
  .beside { grid-template-columns: 1fr 1fr; }
  .gallery { grid-template-columns: 1fr; }
  .slider button, .slider .bar, .slider input { display: none; }
  .slider .frame {
    max-width: none !important; display: grid; grid-template-columns: 1fr 1fr; gap: 2px;
    background: none;
  }
  .slider .after { position: static; clip-path: none; height: auto; }
  .slider .layer { display: none; }
  .scroll { overflow: visible; }
  td, th { white-space: normal; padding: .2rem .4rem; }
}
"""

CSS = COLOURS + MARKS + _LAYOUT

SCRIPT = """
for (const slider of document.querySelectorAll(".slider")) {
  const frame = slider.querySelector(".frame"), range = slider.querySelector("input");
  const show = () => frame.style.setProperty("--at", range.value + "%");
  const follow = (event) => {
    const box = frame.getBoundingClientRect();
    range.value = 100 * (event.clientX - box.left) / box.width;
    show();
  };
  range.addEventListener("input", show);
  frame.addEventListener("pointerdown", (event) => {
    follow(event);
    frame.setPointerCapture(event.pointerId);
  });
  frame.addEventListener("pointermove", (event) => { if (event.buttons) follow(event); });
  const buttons = slider.querySelectorAll("button");
  for (const button of buttons) button.addEventListener("click", () => {
    const pressed = button.getAttribute("aria-pressed") === "true";
    for (const other of buttons) {
      const on = other === button && !pressed;
      other.setAttribute("aria-pressed", on);
      slider.querySelector(`.layer[data-layer="${other.dataset.layer}"]`).hidden = !on;
    }
  });
}
addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("details")) fold.open = true;
});
"""
