(() => {
  "use strict";
  const ROLE = /^@([a-z]+[0-9]?)(?:\/([0-9.]+))?$/;

  // A colour role such as "@accent" or "@r3/0.2", as a colour of the theme in use; anything else as it is.
  function themed(value, theme) {
    if (typeof value === "string") {
      const found = ROLE.exec(value);
      const colour = found && theme.getPropertyValue("--" + found[1]).trim();
      if (!colour) return value;
      const alpha = found[2] === undefined ? 1 : Number(found[2]);
      const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
      return `rgba(${r},${g},${b},${alpha})`;
    }
    if (Array.isArray(value)) return value.map((item) => themed(item, theme));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, themed(item, theme)]));
    }
    return value;
  }

  function draw() {
    const theme = getComputedStyle(document.documentElement);
    const settings = { responsive: true, displaylogo: false, displayModeBar: false };
    for (const source of document.querySelectorAll("script[data-figure]")) {
      const figure = themed(JSON.parse(source.textContent), theme);
      const place = document.getElementById(source.dataset.figure);
      const width = document.documentElement.classList.contains("printing") ? place.clientWidth : undefined;
      Plotly.react(place, figure.data, { ...figure.layout, width }, settings);
    }
  }

  // A click on a column's head sorts by it, a second click the other way round.
  function sortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    const key = (row, column) => {
      const cell = row.cells[column];
      const number = Number(cell.dataset.sort ?? cell.textContent.replace(/,/g, ""));
      return Number.isNaN(number) ? cell.textContent : number;
    };
    const sort = (column) => {
      const up = heads[column].getAttribute("aria-sort") !== "ascending";
      heads.forEach((head) => head.removeAttribute("aria-sort"));
      heads[column].setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [key(a, column), key(b, column)];
        return (x < y ? -1 : x > y ? 1 : 0) * (up ? 1 : -1);
      });
      table.tBodies[0].append(...rows);
    };
    heads.forEach((head, column) => {
      head.tabIndex = 0;
      head.addEventListener("click", () => sort(column));
      head.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault(); // a space would scroll the page
        sort(column);
      });
    });
  }

  function copyable(block) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      const code = block.querySelector("pre");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
    block.append(button);
  }

  // On paper everything is open and in light colours, and the charts are as wide as a page.
  function setPrinting(isPrinting) {
    document.documentElement.classList.toggle("printing", isPrinting);
    for (const block of document.querySelectorAll("details")) {
      if (isPrinting && !block.open) block.dataset.closed = "";
      if (isPrinting) block.open = true;
      else if ("closed" in block.dataset) {
        block.open = false;
        delete block.dataset.closed;
      }
    }
    draw();
  }

  document.querySelectorAll("table.sortable").forEach(sortable);
  document.querySelectorAll(".copied").forEach(copyable);
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
  addEventListener("beforeprint", () => setPrinting(true));
  addEventListener("afterprint", () => setPrinting(false));
})();
