// What a page can do besides being read: search, and a graph to enlarge and to follow.
(function () {
  'use strict';

  function liven(page) {
    const search = page.querySelector('.search');
    if (search) liveSearch(page, search);
    page.querySelectorAll('.graph').forEach(liveGraph);
  }

  // Rows whose text has every word; a group stays if a row of it does, and all of it if its rule fits.
  function liveSearch(page, search) {
    const input = search.querySelector('input');
    const status = search.querySelector('[role=status]');
    const groups = [...page.querySelectorAll('.group')].map((group) => ({
      group,
      wasOpen: group.open,
      title: group.querySelector('summary').textContent.toLowerCase(),
      rows: [...group.querySelectorAll('.row')].map((row) => [row, row.textContent.toLowerCase()]),
    }));
    search.hidden = groups.length === 0;
    input.addEventListener('input', () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      const fits = (text) => words.every((word) => text.includes(word));
      let found = 0;
      for (const { group, wasOpen, title, rows } of groups) {
        const whole = fits(title);
        const shown = rows.filter(([row, text]) => {
          row.hidden = !(whole || fits(text));
          return !row.hidden;
        }).length;
        found += shown;
        group.hidden = shown === 0;
        group.open = words.length > 0 ? shown > 0 : wasOpen;
      }
      status.textContent = words.length === 0 ? '' : `${found} ${found === 1 ? 'line' : 'lines'}`;
    });
  }

  function liveGraph(graph) {
    const canvas = graph.querySelector('.canvas');
    const picture = canvas.querySelector('svg');
    const [width, height] = [picture.width.baseVal.value, picture.height.baseVal.value];
    const zoomed = graph.querySelector('.zoom');
    zoomed.hidden = false;
    let scale = 1;
    function zoom(to) {
      const before = scale;
      scale = Math.min(4, Math.max(0.05, to));
      picture.setAttribute('width', width * scale);
      picture.setAttribute('height', height * scale);
      // The middle of what is seen stays where it is.
      for (const [start, size] of [['scrollLeft', 'clientWidth'], ['scrollTop', 'clientHeight']]) {
        canvas[start] = (canvas[start] + canvas[size] / 2) * (scale / before) - canvas[size] / 2;
      }
    }
    const fit = () => zoom(canvas.clientWidth / width);
    // At first it fits the page, unless it would be too small to read.
    const first = () => { if (graph.open && scale === 1 && width < canvas.clientWidth * 1.5) fit(); };
    graph.addEventListener('toggle', first, { once: true });
    first();
    zoomed.addEventListener('click', (event) => {
      const by = event.target.dataset.zoom;
      if (by === 'fit') fit();
      else if (by) zoom(scale * Number(by));
    });
    canvas.addEventListener('wheel', (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      zoom(scale * (event.deltaY < 0 ? 1.1 : 1 / 1.1));
    }, { passive: false });

    const boxes = [...picture.querySelectorAll('.box')];
    const arrows = [...picture.querySelectorAll('.arrow')];
    const status = zoomed.querySelector('[role=status]');
    const hint = status.textContent;
    let chosen = null;
    // A box, and all that leads to it and on from it; the same box again lets go.
    function follow(box) {
      chosen = box === chosen ? null : box;
      const on = new Set();
      const walk = (number, at, next) => {
        on.add(number);
        for (const arrow of arrows.filter((arrow) => arrow.dataset[at] === number)) {
          arrow.classList.add('on');
          walk(arrow.dataset[next], at, next);
        }
      };
      arrows.forEach((arrow) => arrow.classList.remove('on'));
      if (chosen) {
        walk(chosen.dataset.box, 'from', 'to');
        walk(chosen.dataset.box, 'to', 'from');
      }
      boxes.forEach((other) => other.classList.toggle('on', on.has(other.dataset.box)));
      canvas.classList.toggle('following', chosen !== null);
      status.textContent = chosen ? chosen.querySelector('title').textContent : hint;
    }
    picture.setAttribute('role', 'group');
    for (const box of boxes) {
      box.setAttribute('tabindex', '0');
      box.setAttribute('role', 'button');
      box.addEventListener('click', (event) => { event.stopPropagation(); follow(box); });
      box.addEventListener('keydown', (event) => {
        if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); follow(box); }
        if (event.key === 'Escape') follow(null);
      });
    }
    canvas.addEventListener('click', () => follow(null));
  }

  document.querySelectorAll('.page').forEach(liven);
  // A page that is put into a document later says so.
  document.addEventListener('regraft:page', (event) => liven(event.target));
})();
