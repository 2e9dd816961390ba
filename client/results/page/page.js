"use strict";

// What went wrong is shown on the page: a chart that is missing without a word misleads.
function showError(message) {
  const box = document.getElementById("errors");
  const line = document.createElement("p");
  line.textContent = message;
  box.append(line);
  box.hidden = false;
}

window.addEventListener("error", (event) => showError("Script error: " + event.message));
window.addEventListener("unhandledrejection", (event) => showError("Script error: " + event.reason));
document.addEventListener("securitypolicyviolation", (event) =>
  showError("Refused by this page's own policy: " + event.violatedDirective + " " + event.blockedURI)
);

const PRINTED_WIDTH = 680;

async function drawCharts() {
  const charts = JSON.parse(document.getElementById("documents").textContent);
  const touch = window.matchMedia("(pointer: coarse)").matches;
  const config = { responsive: true, displayModeBar: false, displaylogo: false };
  for (const chart of charts) {
    const box = document.getElementById("chart-" + chart.name);
    // A finger on a chart is there to scroll the page.
    const layout = { ...chart.layout, dragmode: touch ? false : "zoom" };
    await Plotly.newPlot(box, chart.data, layout, config);
    box.dataset.rendered = "true";
  }
  window.addEventListener("beforeprint", () => resizeCharts((box) => PRINTED_WIDTH));
  window.addEventListener("afterprint", () => resizeCharts((box) => box.clientWidth));
  document.documentElement.dataset.drawn = String(charts.length);
}

function resizeCharts(widthOf) {
  for (const details of document.querySelectorAll("details")) details.open = true;
  for (const box of document.querySelectorAll(".chart[data-rendered]")) {
    Plotly.relayout(box, { width: widthOf(box) });
  }
}
