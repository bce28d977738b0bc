// Search over INDEX, and the filters of the table of claims: from a folder, without network.
const root = document.currentScript.dataset.root;
const MOST = 30;

function element(tag, text, set = {}) {
  return Object.assign(document.createElement(tag), { textContent: text, ...set });
}

function around(text, word) {
  const at = Math.max(0, text.toLowerCase().indexOf(word) - 60);
  return (at ? "… " : "") + text.slice(at, at + 160) + (text.length > at + 160 ? " …" : "");
}

function words(text) {
  return text.toLowerCase().split(/\s+/).filter(Boolean);
}

const search = document.getElementById("search");
const results = document.getElementById("results");
search.hidden = false;
search.addEventListener("input", () => {
  const wanted = words(search.value);
  const all = (text) => wanted.every((word) => text.toLowerCase().includes(word));
  const found = wanted.length ? INDEX.filter((entry) => all(`${entry.title} ${entry.text}`)) : [];
  found.sort((one, other) => all(other.title) - all(one.title));
  results.replaceChildren(...found.slice(0, MOST).map(({ kind, title, text, href }) => {
    const item = element("li", `${kind}: `);
    item.append(element("a", title, { href: root + href }));
    item.append(element("div", around(text, wanted[0]), { className: "faint" }));
    return item;
  }));
  if (wanted.length && !found.length) results.append(element("li", "Nothing found."));
  results.hidden = !wanted.length;
});
results.addEventListener("click", (event) => {
  if (event.target.closest("a")) results.hidden = true; // the target may be on this page
});

const filters = document.getElementById("filters");
if (filters) {
  const rows = [...document.querySelectorAll("#verdicts tbody tr")];
  const filter = () => {
    const { text, paper, verdict } = Object.fromEntries(new FormData(filters));
    for (const row of rows) {
      const fits = words(text).every((word) => row.textContent.toLowerCase().includes(word));
      const chosen = [[paper, row.dataset.paper], [verdict, row.dataset.verdict]];
      row.hidden = !fits || chosen.some(([wanted, own]) => wanted !== "" && wanted !== own);
    }
    const shown = rows.filter((row) => !row.hidden).length;
    document.getElementById("shown").textContent = `${shown} of ${rows.length}`;
  };
  filters.hidden = false;
  for (const event of ["input", "change"]) filters.addEventListener(event, filter);
  filters.addEventListener("submit", (event) => event.preventDefault());
  filter(); // a browser keeps what was chosen when it goes back
}
