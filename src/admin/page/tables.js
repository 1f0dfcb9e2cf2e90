// A table that can be sorted and searched. Rows keep their elements when the data changes, so that the focus stays.
"use strict";

/**
 * A table. Each column is {title, key(row), text(row), level(row), kind, description}: `key` is the value by which the column
 * is sorted, `text` is what a cell shows, and `kind` is "number", "wrap" or "name". `id(row)` identifies a row, `order(row)`
 * decides between rows with the same key, and `words(row)` is the text that is searched.
 */
class SortedTable {
  constructor(table, { columns, id, order, words, sort, descending, note, search }) {
    Object.assign(this, { columns, id, order, words, note, search });
    this.sort = { column: columns.findIndex((column) => column.title === sort), descending };
    this.rows = [];
    this.elements = new Map();
    const head = table.createTHead().insertRow();
    this.headings = columns.map((column, n) => {
      const heading = document.createElement("th");
      heading.scope = "col";
      if (column.kind === "number") heading.className = "number";
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = column.title;
      if (column.description) button.title = column.description;
      button.addEventListener("click", () => this.sortBy(n));
      heading.append(button);
      head.append(heading);
      return heading;
    });
    this.body = table.createTBody();
    search.addEventListener("input", () => this.render());
  }

  sortBy(column) {
    const isSame = this.sort.column === column;
    this.sort = { column, descending: isSame ? !this.sort.descending : this.columns[column].kind === "number" };
    this.render();
  }

  show(rows) {
    this.rows = rows;
    this.render();
  }

  render() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = (row) => {
      const text = this.words(row).toLowerCase();
      return words.every((word) => text.includes(word));
    };
    const { column, descending } = this.sort;
    const key = this.columns[column].key;
    const shown = this.rows.filter(matches).map((row) => ({ row, key: key(row) }));
    shown.sort((a, b) => (descending ? -1 : 1) * compare(a.key, b.key) || compare(this.order(a.row), this.order(b.row)));
    this.headings.forEach((heading, n) => {
      if (n === column) heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else heading.removeAttribute("aria-sort");
    });
    const kept = new Set();
    shown.forEach(({ row }, at) => {
      const id = this.id(row);
      kept.add(id);
      const element = this.element(id);
      this.columns.forEach((one, n) => this.fillCell(element.cells[n], one, row));
      if (this.body.rows[at] !== element) this.body.insertBefore(element, this.body.rows[at] ?? null);
    });
    for (const [id, element] of this.elements) {
      if (kept.has(id)) continue;
      element.remove();
      this.elements.delete(id);
    }
    const hidden = this.rows.length - shown.length;
    this.note(hidden > 0 ? `${shown.length} of ${this.rows.length} match the search.` : "");
  }

  element(id) {
    let element = this.elements.get(id);
    if (!element) {
      element = document.createElement("tr");
      for (const { kind } of this.columns) {
        const cell = element.insertCell();
        if (kind) cell.className = kind;
      }
      this.elements.set(id, element);
    }
    return element;
  }

  fillCell(cell, column, row) {
    const text = column.text(row);
    const level = column.level?.(row);
    if (level) cell.dataset.level = level;
    else delete cell.dataset.level;
    if (column.action) {
      const button = cell.firstChild ?? cell.appendChild(document.createElement("button"));
      button.type = "button";
      setText(button, text);
      button.onclick = () => column.action(row);
      button.setAttribute("aria-pressed", String(column.isPressed(row)));
    } else {
      setText(cell, text);
    }
    const title = column.hover?.(row) ?? "";
    if (cell.title !== title) cell.title = title;
  }
}

/** Sets text only if it has changed, so that a selection stays. */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Compares values; unknown ones come first. */
function compare(a, b) {
  if (a === b) return 0;
  if (a === null || a === undefined) return -1;
  if (b === null || b === undefined) return 1;
  return typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
}
