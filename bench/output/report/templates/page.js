"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const figures = read("figures");
  const themes = read("themes");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)"); // there a drag scrolls the page
  const charts = [...document.querySelectorAll("[data-figure]")];
  let printing = false;

  function draw(chart) {
    const figure = structuredClone(figures[chart.dataset.figure]);
    figure.layout.template = dark.matches && !printing ? themes.dark : themes.light;
    figure.layout.dragmode = touch.matches ? false : "zoom";
    const config = { responsive: true, displaylogo: false, displayModeBar: !touch.matches && "hover" };
    Plotly.react(chart, figure.data, figure.layout, config);
  }

  function drawAll() {
    charts.forEach(draw);
  }

  function colour(chart, choice) {
    const figure = figures[chart.dataset.figure];
    const nodes = figure.data[figure.data.length - 1];
    nodes.marker.color = choice.values;
    nodes.marker.colorbar.title = { text: choice.title, side: "top" };
  }

  for (const group of document.querySelectorAll("fieldset[data-colours]")) {
    const chart = document.getElementById(group.dataset.colours);
    const choices = figures[chart.dataset.figure].layout.meta.colourings;
    colour(chart, choices[0]);
    group.addEventListener("change", (event) => {
      colour(chart, choices.find((choice) => choice.name === event.target.value));
      draw(chart);
    });
  }

  // Empty cells come last, whatever the order.
  function sort(table, column, direction) {
    const body = table.tBodies[0];
    const value = (row) => row.cells[column].dataset.value;
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      const numbers = [Number(x), Number(y)];
      const order = numbers.some(Number.isNaN) ? x.localeCompare(y) : numbers[0] - numbers[1];
      return direction * order;
    };
    body.append(...[...body.rows].sort(compare));
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const rising = head.getAttribute("aria-sort") === "descending" ||
          (head.getAttribute("aria-sort") === null && column === 0);
        heads.forEach((cell) => cell.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", rising ? "ascending" : "descending");
        sort(table, column, rising ? 1 : -1);
      });
    });
  }

  drawAll();
  dark.addEventListener("change", drawAll);
  addEventListener("beforeprint", () => { printing = true; drawAll(); });
  addEventListener("afterprint", () => { printing = false; drawAll(); });
})();
