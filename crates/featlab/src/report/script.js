// Sorting, read-outs, series that can be hidden, figures that can be saved. Without it the page says the same.
"use strict";
document.documentElement.classList.add("js");

// Sorts a table by the clicked column: numbers by value, text by letters, cells without a value last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const up = column === 0 ? head.ariaSort !== "ascending" : head.ariaSort === "descending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.cells[column].dataset.value;
    const compare = (a, b) => (Number.isNaN(Number(a) - Number(b)) ? a.localeCompare(b) : a - b);
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      return up ? compare(x, y) : compare(y, x);
    });
    table.tBodies[0].append(...rows);
  }));
}

const tip = document.createElement("div");
tip.className = "tip";
tip.setAttribute("role", "status");
tip.hidden = true;
document.body.append(tip);

function show(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
  tip.style.left = `${Math.max(8, Math.min(x + 14, room))}px`;
  tip.style.top = `${y + 18 + tip.offsetHeight > innerHeight ? y - tip.offsetHeight - 10 : y + 18}px`;
}

for (const figure of document.querySelectorAll("figure.chart")) {
  const svg = figure.querySelector("svg");
  const original = new XMLSerializer().serializeToString(svg);

  // The tooltip of what is nearest to the pointer takes the place of the browser's own, which is slow to come.
  const marks = [...svg.querySelectorAll("g.pt, g.lv, rect.cell")].filter((mark) => mark.querySelector("title"));
  for (const mark of marks) {
    const title = mark.querySelector("title");
    mark.dataset.tip = title.textContent;
    mark.setAttribute("aria-label", title.textContent);
    title.remove();
  }
  const points = marks.filter((mark) => mark.matches("g.pt"));
  svg.addEventListener("pointermove", (event) => {
    let text = event.target.closest("[data-tip]")?.dataset.tip;
    let nearest = 16;
    for (const point of points) {
      const box = point.querySelector(".mark").getBoundingClientRect();
      if (box.width === 0) continue; // hidden
      const far = Math.hypot(box.x + box.width / 2 - event.clientX, box.y + box.height / 2 - event.clientY);
      if (far < nearest) [nearest, text] = [far, point.dataset.tip];
    }
    if (text) show(text, event.clientX, event.clientY);
    else tip.hidden = true;
  });
  svg.addEventListener("pointerleave", () => { tip.hidden = true; });

  for (const key of svg.querySelectorAll("g.key")) {
    key.setAttribute("role", "button");
    key.setAttribute("tabindex", "0");
    key.setAttribute("aria-pressed", "true");
    key.setAttribute("aria-label", key.dataset.series);
    const toggle = () => {
      const off = key.classList.toggle("off");
      key.setAttribute("aria-pressed", String(!off));
      for (const data of svg.querySelectorAll("g.data")) {
        if (data.dataset.series === key.dataset.series) data.classList.toggle("off", off);
      }
    };
    key.addEventListener("click", toggle);
    key.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); toggle(); }
    });
  }

  const save = (url, kind) => {
    const link = document.createElement("a");
    link.href = url;
    link.download = `${figure.dataset.name}.${kind}`;
    link.click();
  };
  const source = () => {
    const hidden = svg.querySelector(".off");
    return `data:image/svg+xml;charset=utf-8,${encodeURIComponent(hidden ? new XMLSerializer().serializeToString(svg) : original)}`;
  };
  const buttons = document.createElement("figcaption");
  buttons.className = "save";
  for (const kind of ["SVG", "PNG"]) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = kind;
    button.title = `Save this figure as ${kind}`;
    button.addEventListener("click", () => {
      if (kind === "SVG") return save(source(), "svg");
      const image = new Image();
      image.onload = () => {
        const canvas = document.createElement("canvas");
        const scale = 3; // 960 pixels are 9.6 inches at 300 dots each
        [canvas.width, canvas.height] = [svg.viewBox.baseVal.width * scale, svg.viewBox.baseVal.height * scale];
        canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
        save(canvas.toDataURL("image/png"), "png");
      };
      image.src = source();
    });
    buttons.append(button);
  }
  figure.append(buttons);
}

addEventListener("keydown", (event) => {
  if (event.key === "Escape") document.querySelectorAll(".zoom:checked").forEach((box) => { box.checked = false; });
});
