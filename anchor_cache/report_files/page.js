// Draws the charts of a report, lets them follow the theme, and walks the frames of the map.
(function () {
  'use strict';
  const read = id => JSON.parse(document.getElementById(id).textContent);
  const at = id => document.getElementById(id);
  const root = document.documentElement;
  const charts = read('charts-data'), map = read('map-data');

  // Theme: the system's until the button is pressed.
  const system = window.matchMedia('(prefers-color-scheme: dark)');
  const isDark = () => (root.dataset.theme || (system.matches ? 'dark' : 'light')) === 'dark';
  const button = at('theme');
  function nameButton() { button.textContent = isDark() ? 'Light theme' : 'Dark theme'; }

  const models = [];
  function paint() {
    const style = getComputedStyle(root), colour = name => style.getPropertyValue(name).trim();
    const ink = colour('--ink'), quiet = colour('--quiet'), rule = colour('--rule'), card = colour('--card');
    for (const model of models) {
      if (model.type.endsWith('Axis')) {
        model.setv({major_label_text_color: quiet, axis_label_text_color: quiet});
      } else if (model.type === 'Grid') {
        if (model.grid_line_color !== null) model.grid_line_color = rule;
      } else if (model.type === 'GlyphRenderer') {
        if (!model.tags.includes('ink')) continue;
        if (model.glyph.type === 'Text') model.glyph.text_color = ink;
        else model.glyph.line_color = ink;
      } else if (model.type === 'Span') {
        model.line_color = quiet;
      }
    }
    const pictured = sources.pictured;
    if (pictured) for (const model of models) {
      if (model.type === 'GlyphRenderer' && model.data_source === pictured) model.glyph.line_color = card;
    }
    nameButton();
  }
  function setTheme(name) {
    if (name) root.dataset.theme = name; else delete root.dataset.theme;
    paint();
  }
  button.addEventListener('click', () => setTheme(isDark() ? 'light' : 'dark'));
  system.addEventListener('change', paint);
  let before;
  window.addEventListener('beforeprint', () => { before = root.dataset.theme; setTheme('light'); });
  window.addEventListener('afterprint', () => setTheme(before));

  // The map: texts and pictures are in the page once, and go from there to the points.
  const sources = {};
  const taskOf = n => map.tasks[map.task_of[n]];
  function placeOf(n) {
    if (!map.episode.length) return '#' + n;
    const dataset = map.datasets.length ? map.datasets[map.dataset_of[n]] + ', ' : '';
    return '#' + n + ' · ' + dataset + 'episode ' + map.episode[n] + ', step ' + map.step[n];
  }
  function fill(source) {
    const records = Array.from(source.data.record), pictures = records.map(n => map.pictures[n] || '');
    const isSample = source === sources.pictured;
    source.data = Object.assign({}, source.data, {
      task: records.map(taskOf), image: pictures, shown: pictures.map(p => p ? 'block' : 'none'),
      place: records.map((n, i) => placeOf(n) + (pictures[i] || isSample ? '' : ' · no picture in this file')),
    });
  }

  let current = 0;
  function show(i) {
    const count = map.walk.length;
    if (!count) return;
    current = (i % count + count) % count;
    const n = map.walk[current], source = sources.pictured, row = Array.from(source.data.record).indexOf(n);
    sources.ring.data = {x: [source.data.x[row]], y: [source.data.y[row]]};
    const picture = at('one-picture'), none = at('one-none');
    if (map.pictures[n]) picture.src = map.pictures[n];
    picture.alt = 'Frame of record ' + n + ', as the teacher saw it';
    picture.hidden = !map.pictures[n];
    none.hidden = !!map.pictures[n];
    at('one-words').textContent = taskOf(n);
    at('one-where').textContent = placeOf(n);
    at('one-at').textContent = map.axes[0] + ' ' + source.data.x[row].toPrecision(3) + ', ' +
      map.axes[1] + ' ' + source.data.y[row].toPrecision(3);
    at('one-number').value = current + 1;
  }
  function highlight(task) {
    for (const name of ['rest', 'pictured']) {
      const source = sources[name], usual = name === 'rest' ? .5 : .9;
      const alpha = Float32Array.from(source.data.record, n => task < 0 || map.task_of[n] === task ? usual : .05);
      source.data = Object.assign({}, source.data, {alpha: alpha});
    }
  }
  function wireMap() {
    fill(sources.rest);
    fill(sources.pictured);
    at('one-previous').addEventListener('click', () => show(current - 1));
    at('one-next').addEventListener('click', () => show(current + 1));
    at('one-number').addEventListener('change', event => {
      const asked = Math.round(Number(event.target.value)) || 1;
      show(Math.min(Math.max(asked, 1), map.walk.length) - 1);
    });
    at('map-keys').addEventListener('keydown', event => {
      const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
      if (!step || event.target.matches('input, select')) return;
      event.preventDefault();
      show(current + step);
    });
    at('one-task').addEventListener('change', event => highlight(Number(event.target.value)));
    const selected = sources.pictured.selected;
    selected.properties.indices.change.connect(() => {
      if (selected.indices.length) show(map.walk.indexOf(sources.pictured.data.record[selected.indices[0]]));
    });
    show(0);
  }

  // The contents say where one is.
  function follow() {
    const links = new Map([...document.querySelectorAll('nav.contents a')].map(a => [a.hash.slice(1), a]));
    const seen = new IntersectionObserver(entries => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        links.forEach(a => a.removeAttribute('aria-current'));
        links.get(entry.target.id).setAttribute('aria-current', 'true');
      }
    }, {rootMargin: '-10% 0px -80% 0px'});
    links.forEach((_, id) => seen.observe(at(id)));
  }

  for (const copy of document.querySelectorAll('.copy button')) {
    copy.addEventListener('click', () => {
      const text = copy.parentElement.querySelector('pre').textContent, said = copy.textContent;
      const done = ok => { copy.textContent = ok ? 'Copied' : 'Press Ctrl+C'; setTimeout(() => { copy.textContent = said; }, 2000); };
      const range = document.createRange();
      range.selectNodeContents(copy.parentElement.querySelector('pre'));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      if (navigator.clipboard) navigator.clipboard.writeText(text).then(() => done(true), () => done(false));
      else done(document.execCommand('copy'));
    });
  }

  nameButton();
  follow();
  Promise.all(charts.map(item => Bokeh.embed.embed_item(item))).then(() => {
    for (const doc of Bokeh.documents) for (const model of doc.all_models || doc._all_models.values()) models.push(model);
    for (const model of models) {
      if (model.type === 'ColumnDataSource' && ['rest', 'pictured', 'ring'].includes(model.name)) sources[model.name] = model;
    }
    if (sources.ring) wireMap();
    paint();
    root.dataset.ready = 'true';
  });
})();
