// A click on a heading sorts its table; printing shows what is folded.
for (const head of document.querySelectorAll("thead th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const descending = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const body = head.closest("table").tBodies[0];
    const keyed = [...body.rows].map((row) => [row.cells[head.cellIndex].textContent.trim(), row]);
    const filled = keyed.filter(([text]) => text !== "");
    const numbers = filled.every(([text]) => !Number.isNaN(Number(text.split(" [")[0])));
    const order = (a, b) =>
      numbers ? Number(a.split(" [")[0]) - Number(b.split(" [")[0]) : a.localeCompare(b);
    filled.sort(([a], [b]) => (descending ? order(b, a) : order(a, b)));
    body.append(...filled.map(([, row]) => row));
    body.append(...keyed.filter(([text]) => text === "").map(([, row]) => row));
  });
}
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const details of opened) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of opened) details.open = false;
});
