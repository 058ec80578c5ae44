/** Rows of a list that are dragged to another place by their grip, with a mouse or a finger. */

const EDGE = 60; // CSS pixels from the edge of what scrolls, where it begins to
const SCROLL_STEP = 10;

/**
 * @param {HTMLElement} list of rows with a `.grip` and a `data-id`
 * @param {(ids: string[]) => void} drop the rows' new order; not called where it is the old one
 */
export function letDrag(list, drop) {
  let row = null;
  let order = "";
  let timer;
  const now = () => [...list.children].map((each) => each.dataset.id);

  function place(y) {
    const others = [...list.children].filter((each) => each !== row);
    const next = others.find((each) => {
      const box = each.getBoundingClientRect();
      return y < box.top + box.height / 2;
    });
    if ((next ?? null) !== row.nextElementSibling) list.insertBefore(row, next ?? null);
  }

  function scroll(y) {
    clearInterval(timer);
    const scroller = scrollerOf(list);
    const box =
      scroller === document.scrollingElement ? { top: 0, bottom: innerHeight } : scroller.getBoundingClientRect();
    const step = y < box.top + EDGE ? -SCROLL_STEP : y > box.bottom - EDGE ? SCROLL_STEP : 0;
    if (step) timer = setInterval(() => (scroller.scrollTop += step), 16);
  }

  function end(isDropped) {
    clearInterval(timer);
    row.classList.remove("dragged");
    row = null;
    const ids = now();
    if (isDropped && ids.join() !== order) drop(ids);
    else if (!isDropped) {
      const byId = new Map([...list.children].map((each) => [each.dataset.id, each]));
      list.append(...order.split(",").map((id) => byId.get(id)));
    }
  }

  list.addEventListener("pointerdown", (event) => {
    if (!event.target.matches(".grip") || event.button) return;
    event.preventDefault();
    row = event.target.closest("li");
    order = now().join();
    row.classList.add("dragged");
    list.setPointerCapture(event.pointerId); // the row itself is moved about, and would lose it
  });
  list.addEventListener("pointermove", ({ clientY }) => {
    if (!row) return;
    place(clientY);
    scroll(clientY);
  });
  list.addEventListener("pointerup", () => row && end(true));
  list.addEventListener("pointercancel", () => row && end(false));
  document.addEventListener(
    "keydown",
    (event) => {
      if (!row || event.key !== "Escape") return;
      event.stopPropagation();
      end(false);
    },
    true,
  );
}

function scrollerOf(element) {
  for (let each = element; each; each = each.parentElement) {
    if (each.scrollHeight > each.clientHeight && /auto|scroll/.test(getComputedStyle(each).overflowY)) return each;
  }
  return document.scrollingElement;
}
