"use strict";
// Shows the reports whose row has every word that is typed.
(() => {
  const box = document.querySelector(".index-search");
  const rows = [...document.querySelectorAll("table.index tbody tr")];
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
    document.querySelector(".index-count").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  });
})();
