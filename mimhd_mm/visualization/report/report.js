// Draws the report's figures, colours them as the page is shown, and moves the sliders. Texts go in as text, never as
// HTML.
'use strict';
(function () {
  const data = JSON.parse(document.getElementById('report-data').textContent);
  const dark = window.matchMedia('(prefers-color-scheme: dark)');
  const coarse = window.matchMedia('(pointer: coarse)').matches;  // there a drag scrolls the page
  const COLOURS = 8;
  const element = (id) => document.getElementById(id);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();

  // ---- figures -----------------------------------------------------------------------------------------------------
  function coloured(trace) {
    const meta = trace.meta || {};
    const result = Object.assign({}, trace);
    if (meta.scale === 'sequential') {
      result.colorscale = [[0, colour('map-0')], [1, colour('map-1')]];
    } else {
      const own = meta.run === null || meta.run === undefined ? colour('muted') : colour('run-' + meta.run % COLOURS);
      result.line = Object.assign({}, trace.line, {color: own});
      result.marker = Object.assign({}, trace.marker, {color: own});
    }
    if (trace.colorbar) {
      result.colorbar = Object.assign({outlinewidth: 0}, trace.colorbar);
    }
    return result;
  }

  function themed(layout) {
    const result = Object.assign({}, layout, {
      paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)', dragmode: coarse ? false : 'zoom',
      font: {color: colour('text'), size: 12, family: getComputedStyle(document.body).fontFamily},
      hoverlabel: {bgcolor: colour('surface'), bordercolor: colour('muted'), font: {color: colour('text')}},
    });
    for (const axis of ['xaxis', 'yaxis']) {
      result[axis] = Object.assign(
        {gridcolor: colour('grid'), zerolinecolor: colour('line'), linecolor: colour('line')}, layout[axis]);
    }
    result.shapes = (layout.shapes || []).map(
      (shape) => Object.assign({}, shape, {line: Object.assign({}, shape.line, {color: colour('text')})}));
    result.annotations = (layout.annotations || []).map(
      (note) => Object.assign({font: {color: colour('muted'), size: 11}}, note));
    return result;
  }

  function draw(id) {
    const figure = data.figures[id];
    Plotly.react(element(id), figure.data.map(coloured), themed(figure.layout), {
      responsive: true, displaylogo: false, displayModeBar: false});
  }

  function drawAll() {
    Object.keys(data.figures).forEach(draw);
  }

  // ---- head routing ------------------------------------------------------------------------------------------------
  function readingAt(readings, iteration) {  // the last one that was made by then, or the first of all
    let found = readings[0];
    for (const reading of readings) {
      if (reading.iteration <= iteration) found = reading;
    }
    return found;
  }

  function showIteration(index) {
    const iteration = data.iterations[index];
    const slider = element('iteration');
    slider.setAttribute('aria-valuetext', 'iteration ' + iteration);
    element('iteration-shown').textContent = iteration;
    for (const item of data.routing) {
      const reading = readingAt(item.readings, iteration);
      data.figures[item.map].data[0].z = reading.weights;
      const line = data.figures[item.history].layout.shapes[0];
      line.x0 = line.x1 = reading.iteration;
      draw(item.map);
      draw(item.history);
      for (const text of document.querySelectorAll('.reading[data-map="' + item.map + '"]')) {
        text.textContent = 'iteration ' + reading.iteration;
      }
      document.querySelectorAll('table.weights[data-map="' + item.map + '"] tbody tr').forEach((row, student) => {
        row.querySelectorAll('td').forEach((cell, teacher) => {
          const weight = reading.weights[student][teacher];
          cell.textContent = weight === null ? 'not finite' : weight.toFixed(3);
        });
      });
    }
  }

  function play(slider, button) {
    let timer = null;
    function stop() {
      clearInterval(timer);
      timer = null;
      button.textContent = 'Play';
      button.setAttribute('aria-pressed', 'false');
    }
    function step() {
      if (Number(slider.value) >= Number(slider.max)) return stop();
      slider.value = Number(slider.value) + 1;
      showIteration(Number(slider.value));
    }
    button.addEventListener('click', () => {
      if (timer !== null) return stop();
      if (slider.value === slider.max) {
        slider.value = 0;
        showIteration(0);
      }
      button.textContent = 'Stop';
      button.setAttribute('aria-pressed', 'true');
      timer = setInterval(step, 250);
    });
    slider.addEventListener('input', stop);
  }

  // ---- the page ----------------------------------------------------------------------------------------------------
  const slider = element('iteration');
  if (slider) {
    slider.value = slider.max;  // browsers keep a slider where it was when a page is loaded again
    slider.addEventListener('input', () => showIteration(Number(slider.value)));
    play(slider, element('play'));
  }
  for (const frames of document.querySelectorAll('input.frames')) {
    const pictures = frames.closest('article').querySelectorAll('.picture');
    frames.value = frames.max;
    frames.addEventListener('input', () => {
      pictures.forEach((picture, index) => { picture.hidden = index !== Number(frames.value); });
      const iteration = pictures[Number(frames.value)].dataset.iteration;
      frames.setAttribute('aria-valuetext', 'iteration ' + iteration);
      frames.parentElement.querySelector('output').textContent = iteration;
    });
  }
  for (const box of document.querySelectorAll('input.show-run')) {
    box.checked = true;
    box.addEventListener('change', () => {
      for (const figure of Object.values(data.figures)) {
        for (const trace of figure.data) {
          if (trace.meta && trace.meta.run === Number(box.value)) trace.visible = box.checked;
        }
      }
      for (const article of document.querySelectorAll('article[data-run="' + box.value + '"]')) {
        article.hidden = !box.checked;
      }
      drawAll();
    });
  }
  dark.addEventListener('change', drawAll);
  drawAll();
})();
