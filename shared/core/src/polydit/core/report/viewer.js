// Rotatable views of spheres, sticks and boxes, and of clouds of points. Many on one page, no library, no WebGL: a
// page may hold only about 16 WebGL contexts, and a remote desktop has none. Solids are sorted by depth and painted
// from the back, spheres as sprites shared by all views; points go through a depth buffer, some thousand in a
// millisecond. A scene is what to_json of Scene in viewer.py or of PointScene in points.py writes.
"use strict";
(() => {
  const CAMERA = 4.5;         // distance of the eye, in radii of the scene
  const FOG_LEVELS = 8;       // steps of fading into the background
  const FOG_MOST = 0.55;      // how far the furthest things fade
  const STICK = 0.42;         // radius of a single stick, as a part of the smaller of its two spheres
  const PIECES = 20;          // of each edge of a box, so that spheres can hide a part of one
  const AXES = ["#cf4b3f", "#3f9a55", "#4c7fd6"]; // a, b, c of a box
  const LIGHTS = 6;           // steps from the dark to the bright side of a point
  const FINEST = 8;           // largest radius of a point in pixels
  const HOME = [[0.88, 0, 0.47], [0.14, 0.95, -0.27], [-0.45, 0.3, 0.84]]; // from slightly above, y up

  // ---- small vectors -------------------------------------------------------------------------------------
  const add = (p, q) => [p[0] + q[0], p[1] + q[1], p[2] + q[2]];
  const sub = (p, q) => [p[0] - q[0], p[1] - q[1], p[2] - q[2]];
  const times = (p, s) => [p[0] * s, p[1] * s, p[2] * s];
  const dot = (p, q) => p[0] * q[0] + p[1] * q[1] + p[2] * q[2];
  const norm = (p) => Math.hypot(p[0], p[1], p[2]);
  const cross = (p, q) => [p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]];
  const apply = (m, p) => [dot(m[0], p), dot(m[1], p), dot(m[2], p)];
  const column = (m, j) => [m[0][j], m[1][j], m[2][j]];
  const product = (m, n) => m.map((row) => [0, 1, 2].map((j) => dot(row, column(n, j))));
  const turn = (x, y) => {
    const [cx, sx, cy, sy] = [Math.cos(x), Math.sin(x), Math.cos(y), Math.sin(y)];
    return product([[1, 0, 0], [0, cx, -sx], [0, sx, cx]], [[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]);
  };

  // ---- colours: each faded in a few steps, each step with its sprites, shared by all views -----------------
  const numbers = (text) => text.match(/\d+/g).slice(0, 3).map(Number); // of "rgb(1, 2, 3)"
  const mix = (c, d, t) => c.map((value, k) => Math.round(value + (d[k] - value) * t));
  const css = (c) => `rgb(${c[0]},${c[1]},${c[2]})`;
  const WHITE = [255, 255, 255], BLACK = [0, 0, 0];
  const colours = new Map();

  function colourOf(hex) {
    const rgb = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    if (!colours.has(hex)) colours.set(hex, {rgb, shades: []});
    return colours.get(hex);
  }

  function shadeOf(colour, level, background) {
    if (!colour.shades[level]) {
      const rgb = mix(colour.rgb, background, FOG_MOST * level / FOG_LEVELS);
      colour.shades[level] = {rgb, css: css(rgb), sprites: []};
    }
    return colour.shades[level];
  }

  function spriteOf(shade, power) {
    if (!shade.sprites[power]) shade.sprites[power] = paintedSphere(shade.rgb, 2 ** power);
    return shade.sprites[power];
  }

  function paintedSphere(colour, size) {
    const image = document.createElement("canvas");
    image.width = image.height = size;
    const ctx = image.getContext("2d"), r = size / 2;
    const light = ctx.createRadialGradient(r * 0.68, r * 0.62, 0, r, r, r);
    light.addColorStop(0, css(mix(colour, WHITE, 0.75)));
    light.addColorStop(0.3, css(mix(colour, WHITE, 0.22)));
    light.addColorStop(0.62, css(colour));
    light.addColorStop(0.9, css(mix(colour, BLACK, 0.3)));
    light.addColorStop(1, css(mix(colour, BLACK, 0.48)));
    ctx.fillStyle = light;
    ctx.beginPath();
    ctx.arc(r, r, r - 0.5, 0, 2 * Math.PI);
    ctx.fill();
    return image;
  }

  // ---- one view: camera, frame and hands -------------------------------------------------------------------
  class View {
    constructor(canvas, home) {
      this.canvas = canvas;
      this.home = home || HOME;
      this.fineness = Math.min(window.devicePixelRatio || 1, 2);
    }

    reset() {
      this.rotation = this.home;
      this.zoom = 1;
      this.request();
    }

    // ---- drawing -----------------------------------------------------------------------------------------
    request() {
      if (this.pending) return;
      this.pending = true;
      requestAnimationFrame(() => { this.pending = false; this.draw(); });
    }

    draw() {
      if (!this.visible) return;
      const canvas = this.canvas, dpr = this.fineness;
      const width = Math.round(canvas.clientWidth * dpr), height = Math.round(canvas.clientHeight * dpr);
      if (!width || !height) return;
      if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
      this.ctx = canvas.getContext("2d");
      const style = getComputedStyle(canvas.parentElement);
      this.background = numbers(style.backgroundColor);
      this.ink = css(mix(numbers(style.color), this.background, 0.45));
      const [w, h] = this.middle = [width / 2, height / 2];
      const home = Math.min(w / this.span[0], h / this.span[1]), round = Math.min(w, h) / this.extent;
      this.scale = 0.86 * this.zoom * Math.min(home, 1.35 * round);
      this.paint(width, height);
    }

    // ---- hands -------------------------------------------------------------------------------------------
    rotate(x, y) { this.rotation = product(turn(x, y), this.rotation); this.request(); }

    magnify(factor) { this.zoom = Math.min(12, Math.max(0.3, this.zoom * factor)); this.request(); }

    listen() {
      const canvas = this.canvas;
      let last = null; // where the pointer was, while it is down
      canvas.addEventListener("pointerdown", (event) => {
        canvas.focus();
        canvas.setPointerCapture(event.pointerId);
        last = [event.clientX, event.clientY];
      });
      canvas.addEventListener("pointermove", (event) => {
        if (!last || !canvas.hasPointerCapture(event.pointerId)) return;
        this.rotate((event.clientY - last[1]) * 0.01, (event.clientX - last[0]) * 0.01);
        last = [event.clientX, event.clientY];
      });
      canvas.addEventListener("dblclick", () => this.reset());
      canvas.addEventListener("wheel", (event) => {
        // The page scrolls past views: only the one that was clicked (or a pinch) zooms.
        if (document.activeElement !== canvas && !event.ctrlKey) return;
        event.preventDefault();
        this.magnify(Math.exp(-event.deltaY * 0.0015));
      }, {passive: false});
      const keys = {
        ArrowLeft: () => this.rotate(0, -0.13), ArrowRight: () => this.rotate(0, 0.13),
        ArrowUp: () => this.rotate(-0.13, 0), ArrowDown: () => this.rotate(0.13, 0),
        "+": () => this.magnify(1.15), "=": () => this.magnify(1.15), "-": () => this.magnify(1 / 1.15),
        0: () => this.reset(),
      };
      canvas.addEventListener("keydown", (event) => {
        if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        keys[event.key]();
      });
    }
  }

  // ---- spheres, sticks and boxes -----------------------------------------------------------------------------
  class Solids extends View {
    constructor(canvas, scene) {
      super(canvas, scene.rotation);
      const each = (values) => scene.points.map((_, i) => (Array.isArray(values) ? values[i] : values));
      this.points = scene.points;
      this.radii = each(scene.radii);
      this.colours = each(scene.colours).map(colourOf);
      this.measure(scene.cell || []);
      const [radii, colours] = [this.radii, this.colours];
      this.parts = this.points.map((at, i) => ({at, radius: radii[i], colour: colours[i], paint: this.paintSphere}));
      scene.bonds.forEach(([i, j, order], _, bonds) => this.addBond(i, j, order, bonds));
      if (scene.cell) this.addBox(scene.cell);
      this.reset();
    }

    measure(cell) {
      const corners = cell.length ? boxCorners(cell) : [];
      const all = this.points.concat(corners), radii = this.radii.concat(corners.map(() => 0));
      const bound = (k, sign) => all.reduce((most, p, i) => Math.max(most, sign * p[k] + radii[i]), -Infinity);
      this.centre = all.length ? [0, 1, 2].map((k) => (bound(k, 1) - bound(k, -1)) / 2) : [0, 0, 0];
      this.extent = all.reduce((most, p, i) => Math.max(most, norm(sub(p, this.centre)) + radii[i]), 1e-9);
      const seen = all.map((p) => apply(this.home, sub(p, this.centre)));
      this.span = [0, 1].map((k) => seen.reduce((most, p, i) => Math.max(most, Math.abs(p[k]) + radii[i]), 1e-9));
    }

    // A bond becomes one stick or several side by side; each stick two halves in the colours of its ends.
    addBond(i, j, order, bonds) {
      const [p, q] = [this.points[i], this.points[j]], along = sub(q, p), length = norm(along);
      if (length < 1e-9) return;
      const many = order > 1, alike = bonds.filter((bond) => bond[2] === order); // a ring's dashes belong inside
      const side = many ? this.sideways(i, j, times(along, 1 / length), [...alike, ...bonds]) : [0, 0, 0];
      const thick = Math.min(this.radii[i], this.radii[j]) * STICK * (many ? 0.55 : 1);
      const offsets = order >= 3 ? [-1, 0, 1] : many ? [-0.5, 0.5] : [0];
      offsets.forEach((offset, which) => {
        const shift = times(side, offset * thick * 3.1), dashes = order === 1.5 && which === 1 ? 4 : 0;
        this.addStick(i, j, add(p, shift), add(q, shift), thick * (dashes ? 0.8 : 1), norm(shift), dashes);
      });
    }

    addStick(i, j, p, q, thick, shift, dashes) {
      const length = norm(sub(q, p)), at = (t) => add(p, times(sub(q, p), t));
      const inside = (r) => Math.sqrt(Math.max(0, r * r - (shift + thick) ** 2)) / length; // ends on the surface
      const [from, to] = [inside(this.radii[i]), 1 - inside(this.radii[j])];
      if (from >= to) return;
      const pieces = dashes ? 2 * dashes + 1 : 2;
      for (let k = 0; k < pieces; k += dashes ? 2 : 1) {
        const [s, t] = [from + (to - from) * k / pieces, from + (to - from) * (k + 1) / pieces];
        const colour = this.colours[(dashes ? (s + t) / 2 : k / pieces) < 0.5 ? i : j];
        this.parts.push({ends: [at(s), at(t)], thick, colour, paint: this.paintStick});
      }
    }

    // Parallel sticks lie in the plane of the neighbours, so that flat groups look flat.
    sideways(i, j, unit, bonds) {
      for (const [k, l] of bonds) {
        if ((k === i || k === j) === (l === i || l === j)) continue; // the bond itself, or none of its neighbours
        const away = sub(this.points[k], this.points[l]), side = sub(away, times(unit, dot(away, unit)));
        if (norm(side) > 0.1 * norm(away)) return times(side, ((k === i || k === j) ? -1 : 1) / norm(side));
      }
      const any = Math.abs(unit[0]) < 0.8 ? [1, 0, 0] : [0, 1, 0], side = cross(unit, any);
      return times(side, 1 / norm(side));
    }

    addBox(cell) {
      const corners = boxCorners(cell);
      for (let corner = 0; corner < 8; corner++) {
        for (let axis = 0; axis < 3; axis++) {
          const colour = corner === 0 ? colourOf(AXES[axis]) : null;
          if (!(corner & (1 << axis))) this.addEdge(corners[corner], cell[axis], colour);
        }
      }
      const beyond = this.radii.reduce((most, r) => Math.max(most, r), 0) + 0.09 * this.extent;
      cell.forEach((edge, k) => {
        const at = times(edge, 1 + beyond / norm(edge));
        this.parts.push({at, text: "abc"[k], colour: colourOf(AXES[k]), paint: this.paintLabel});
      });
    }

    addEdge(p, edge, colour) {
      for (let k = 0; k < PIECES; k++) {
        const ends = [add(p, times(edge, k / PIECES)), add(p, times(edge, (k + 1) / PIECES))];
        const middle = times(add(ends[0], ends[1]), 0.5);
        const hidden = this.points.some((point, i) => norm(sub(point, middle)) < this.radii[i]);
        if (!hidden) this.parts.push({ends, colour, behind: 0.06 * this.extent, paint: this.paintLine});
      }
    }

    paint(width, height) {
      this.ctx.clearRect(0, 0, width, height);
      for (const part of this.parts) this.place(part);
      this.parts.sort((p, q) => p.z - q.z); // stays nearly sorted from one frame to the next
      for (const part of this.parts) part.paint(part);
    }

    place(part) {
      if (part.at) return Object.assign(part, this.project(part.at));
      [part.from, part.to] = part.ends.map((end) => this.project(end));
      part.z = (part.from.z + part.to.z) / 2 - (part.behind || 0); // so that a stick on an edge hides it
    }

    project(p) {
      const [x, y, z] = apply(this.rotation, sub(p, this.centre));
      const size = this.scale * CAMERA * this.extent / (CAMERA * this.extent - z);
      return {x: this.middle[0] + x * size, y: this.middle[1] - y * size, z, size};
    }

    shade(colour, z) {
      const level = Math.round(FOG_LEVELS * (0.5 - z / (2 * this.extent)));
      return shadeOf(colour, Math.min(FOG_LEVELS, Math.max(0, level)), this.background);
    }

    paintSphere = ({x, y, z, size, radius, colour}) => {
      const r = radius * size, shade = this.shade(colour, z);
      if (r < 1.2) {
        this.ctx.fillStyle = shade.css;
        this.ctx.fillRect(x - r, y - r, 2 * r, 2 * r);
      } else {
        this.ctx.drawImage(spriteOf(shade, Math.min(8, Math.ceil(Math.log2(2 * r)))), x - r, y - r, 2 * r, 2 * r);
      }
    };

    // A cylinder seen from far: a band with round ends, flattened by how much it points to the eye.
    paintStick = ({from, to, z, thick, colour}) => {
      const ctx = this.ctx, [dx, dy] = [to.x - from.x, to.y - from.y], flat = Math.hypot(dx, dy);
      const [r, s] = [thick * from.size, thick * to.size], angle = Math.atan2(dy, dx);
      const away = Math.abs(from.z - to.z) * (from.size + to.size) / 2, bulge = away / (Math.hypot(away, flat) || 1);
      const [nx, ny] = flat > 1e-6 ? [-dy / flat, dx / flat] : [0, 1], up = nx + ny < 0 ? 1 : -1;
      const shade = this.shade(colour, z);
      const [lx, ly] = [up * nx * r, up * ny * r];
      const light = ctx.createLinearGradient(from.x + lx, from.y + ly, from.x - lx, from.y - ly);
      light.addColorStop(0, css(mix(shade.rgb, BLACK, 0.18)));
      light.addColorStop(0.3, css(mix(shade.rgb, WHITE, 0.4)));
      light.addColorStop(0.6, shade.css);
      light.addColorStop(1, css(mix(shade.rgb, BLACK, 0.45)));
      ctx.fillStyle = light;
      ctx.beginPath();
      ctx.ellipse(from.x, from.y, r * bulge, r, angle, Math.PI / 2, -Math.PI / 2);
      ctx.ellipse(to.x, to.y, s * bulge, s, angle, -Math.PI / 2, Math.PI / 2);
      ctx.fill();
    };

    paintLine = ({from, to, z, colour}) => {
      const ctx = this.ctx, width = Math.max(1, this.middle[1] / 110);
      ctx.strokeStyle = colour ? this.shade(colour, z).css : this.ink;
      ctx.lineWidth = colour ? 1.8 * width : width;
      ctx.lineCap = "round";
      ctx.beginPath();
      ctx.moveTo(from.x, from.y);
      ctx.lineTo(to.x, to.y);
      ctx.stroke();
    };

    paintLabel = ({x, y, text, colour}) => {
      const ctx = this.ctx;
      ctx.fillStyle = css(colour.rgb);
      ctx.font = `italic 600 ${Math.round(this.middle[1] / 9)}px system-ui, sans-serif`;
      ctx.textAlign = "center";
      ctx.textBaseline = "middle";
      ctx.fillText(text, x, y);
    };
  }

  const boxCorners = (cell) => [...Array(8).keys()].map((bits) =>
    [0, 1, 2].reduce((p, k) => (bits & (1 << k) ? add(p, cell[k]) : p), [0, 0, 0]));

  // ---- clouds of points ----------------------------------------------------------------------------------------
  const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const frames = new Map(); // pixels and depths by size: one frame serves all views of a size
  const stamps = [];        // by radius in pixels

  function frameOf(width, height) {
    const name = `${width} ${height}`;
    if (!frames.has(name)) {
      if (frames.size > 4) frames.clear(); // while a window is resized
      const image = new ImageData(width, height);
      frames.set(name, {image, pixels: new Uint32Array(image.data.buffer), depths: new Float32Array(width * height)});
    }
    return frames.get(name);
  }

  // The pixels of a small sphere: where, how far towards the viewer (in radii), and how bright.
  function stampOf(radius) {
    if (stamps[radius]) return stamps[radius];
    const stamp = {dx: [], dy: [], rise: [], light: []}, reach = radius + 0.5;
    for (let dy = -radius; dy <= radius; dy++) {
      for (let dx = -radius; dx <= radius; dx++) {
        const far = (dx * dx + dy * dy) / (reach * reach);
        if (far > 1) continue;
        const rise = Math.sqrt(1 - far), bright = (-0.45 * dx - 0.6 * dy) / reach + 0.66 * rise;
        stamp.dx.push(dx); stamp.dy.push(dy); stamp.rise.push(rise);
        stamp.light.push(Math.round((LIGHTS - 1) * Math.min(1, Math.max(0, bright))));
      }
    }
    return (stamps[radius] = stamp);
  }

  class Points extends View {
    constructor(canvas, scene) {
      super(canvas, scene.rotation);
      this.fineness = 2; // there is no smoothing at the edges of points but that of a finer picture
      this.points = Float32Array.from(new Int16Array(bytesOf(scene.points).buffer), (value) => value * scene.step);
      this.colours = bytesOf(scene.colours);
      this.palette = scene.palette.map((hex) => colourOf(hex).rgb);
      this.radius = scene.radius;
      this.measure();
      this.reset();
    }

    measure() {
      let [extent, across, up] = [1e-9, 1e-9, 1e-9];
      for (let i = 0; i < this.points.length; i += 3) {
        const p = [this.points[i], this.points[i + 1], this.points[i + 2]], [x, y] = apply(this.home, p);
        extent = Math.max(extent, norm(p) + this.radius);
        across = Math.max(across, Math.abs(x) + this.radius);
        up = Math.max(up, Math.abs(y) + this.radius);
      }
      this.extent = extent;
      this.span = [across, up];
    }

    // Every colour in all steps of fading and of light, as the words of a frame; again when the page turns dark.
    shades() {
      const name = String(this.background);
      if (this.shaded !== name) {
        this.shaded = name;
        this.table = Uint32Array.from({length: this.palette.length * (FOG_LEVELS + 1) * LIGHTS}, (_, k) => {
          const light = (k % LIGHTS) / (LIGHTS - 1), level = Math.floor(k / LIGHTS) % (FOG_LEVELS + 1);
          const plain = this.palette[Math.floor(k / LIGHTS / (FOG_LEVELS + 1))];
          const lit = light < 0.6 ? mix(plain, BLACK, 0.5 * (1 - light / 0.6)) : mix(plain, WHITE, 0.5 * (light - 0.6));
          const [r, g, b] = mix(lit, this.background, FOG_MOST * level / FOG_LEVELS);
          return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
        });
      }
      return this.table;
    }

    paint(width, height) {
      const {image, pixels, depths} = frameOf(width, height), table = this.shades();
      pixels.fill(0);
      depths.fill(-Infinity);
      const {points, colours, extent, radius} = this, [[a, b, c], [d, e, f], [g, h, k]] = this.rotation;
      const [left, top] = this.middle, eye = CAMERA * extent, scale = this.scale * eye;
      for (let i = 0, n = 0; i < points.length; i += 3, n++) {
        const x = points[i], y = points[i + 1], z = points[i + 2], depth = g * x + h * y + k * z;
        const size = scale / (eye - depth), stamp = stampOf(Math.min(FINEST, Math.max(1, Math.round(radius * size))));
        const column = Math.round(left + (a * x + b * y + c * z) * size);
        const row = Math.round(top - (d * x + e * y + f * z) * size);
        const level = Math.min(FOG_LEVELS, Math.max(0, Math.round(FOG_LEVELS * (0.5 - depth / (2 * extent)))));
        const shade = (colours[n] * (FOG_LEVELS + 1) + level) * LIGHTS;
        for (let s = 0; s < stamp.dx.length; s++) {
          const u = column + stamp.dx[s], v = row + stamp.dy[s];
          if (u < 0 || v < 0 || u >= width || v >= height) continue;
          const at = v * width + u, near = depth + stamp.rise[s] * radius;
          if (near <= depths[at]) continue;
          depths[at] = near;
          pixels[at] = table[shade + stamp.light[s]];
        }
      }
      this.ctx.putImageData(image, 0, 0);
    }
  }

  // ---- the page ------------------------------------------------------------------------------------------
  const views = new Map();
  const watch = new IntersectionObserver((entries) => entries.forEach(({target, isIntersecting}) => {
    views.get(target).visible = isIntersecting;
    if (isIntersecting) views.get(target).draw();
  }), {rootMargin: "200px"});
  const sizes = new ResizeObserver((entries) => entries.forEach(({target}) => views.get(target).request()));

  function mount(element) {
    const canvas = element.querySelector("canvas");
    if (!canvas || views.has(canvas)) return;
    const scene = JSON.parse(element.querySelector("script").textContent);
    const view = scene.palette ? new Points(canvas, scene) : new Solids(canvas, scene);
    views.set(canvas, view);
    view.listen();
    watch.observe(canvas);
    sizes.observe(canvas);
  }

  function mountViewers(root) {
    for (const element of root.querySelectorAll(".viewer")) {
      try {
        mount(element);
      } catch (error) { // one bad scene costs one view
        element.textContent = `This view cannot be drawn: ${error.message}`;
        console.error(error);
      }
    }
  }

  function repaint() {
    colours.forEach((colour) => { colour.shades = []; });
    views.forEach((view) => view.request());
  }

  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  window.addEventListener("beforeprint", () => views.forEach((view) => { view.visible = true; view.draw(); }));
  window.mountViewers = mountViewers; // for pages that add views later
  mountViewers(document);
  requestAnimationFrame(() => requestAnimationFrame(() => {
    window.ready = true;
    document.documentElement.dataset.ready = "true";
  }));
})();
