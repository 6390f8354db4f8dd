"""The compared methods, as nodes of one graph per layout.

A result that several methods share, such as GLIGEN's image, is one node of the graph. This module knows node types and
settings; it runs nothing. A method is a function of a `Graph` that adds its nodes and returns the name of the node whose
image counts. Some methods, such as masks and `auto`, only make sense around one setting of LSReGen.

"""
import json

CFG_SMALL, CFG_LARGE = 3.0, 2.0  # the best scale for each built-in model; see docs/evaluation.md
MAPS = 2  # selects maps of half the latent's side (8² and 16² in the built-in models) instead of the published 16² of 64²
BEST = (0.5, 0.4, "ddim")  # LSReGen's setting that won on the set `tune`: see docs/evaluation.md
STRENGTHS, FRACTIONS, INVERSIONS = (0.1, 0.25, 0.5, 0.75, 1.0), (0.05, 0.1, 0.2, 0.4), ("ddim", "noise")


class Graph:
    """The nodes of one layout. A node that is added twice is kept once."""

    def __init__(self, layout):
        self.layout, self.nodes = layout, {}
        self.prompt, self.ground = layout["prompt"], layout["prompt"].rsplit(" on ", 1)[1]

    def add(self, type, **fields):
        """Adds a node of this type with these fields, unless it exists, and returns its name."""
        node = {"type": type, **fields}
        for name, known in self.nodes.items():
            if known == node:
                return name
        name = f"{type.lower()}-{len(self.nodes)}"
        self.nodes[name] = node
        return name

    def small(self):
        return self.add("LoadModel", model="shapes/gligen")

    def large(self):
        return self.add("LoadModel", model="shapes/xl")

    def gligen(self, **size):
        fields = {"prompt": self.prompt, "boxes": self.layout["boxes"], "seed": self.layout["seed_small"], "cfg": CFG_SMALL}
        return self.add("GLIGENLayout", model=self.small(), **fields, **size)

    def enlarged(self):
        return self.add("Upsample", image=f"{self.gligen()}.image", width=256, height=256)

    def encoded(self):
        return self.add("VAEEncode", model=self.large(), image=self.enlarged())

    def boxes(self):
        return self.add("Layout", boxes=self.layout["boxes"])

    def sample_large(self, *guidance, type="GuidedSDXLSample", **fields):
        fields = {"prompt": self.prompt, "seed": self.layout["seed_large"], "cfg": CFG_LARGE} | fields
        z = self.add(type, model=self.large(), guidance=list(guidance), **fields)
        return self.add("Decode", model=self.large(), latent=z)

    def sample_small(self, *guidance, **fields):
        fields = {"prompt": self.prompt, "seed": self.layout["seed_small"], "cfg": CFG_SMALL} | fields
        z = self.add("GuidedSDSample", model=self.small(), guidance=list(guidance), **fields)
        return self.add("Decode", model=self.small(), latent=z)

    def save(self, name, image):
        self.add("SaveImage", image=image, path=f"{name}/{self.layout['id']:04}.png")

    def needed(self, name):
        """Returns the nodes that the saved image of a method needs, except models."""
        path = f"{name}/{self.layout['id']:04}.png"
        out, look = set(), [n for n, node in self.nodes.items() if node.get("path") == path]
        while look:
            at = look.pop()
            if at not in out and self.nodes[at]["type"] != "LoadModel":
                out.add(at)
                for value in self.nodes[at].values():
                    links = value if isinstance(value, list) else [value]
                    look += [n for link in links if isinstance(link, str) and (n := link.split(".")[0]) in self.nodes]
        return out

    def text(self):
        """Returns the text of the graph as JSON, which is YAML too."""
        return json.dumps({"lsregen": 1, "about": f"layout {self.layout['id']}: {self.prompt}", "nodes": self.nodes}, indent=1) + "\n"


def lsregen(w, fraction, mode, cfg=CFG_LARGE, boxes=False, **fields):
    """LSReGen with strength w or "auto". With `boxes`, the guidance gets the layout's boxes."""
    sampling = {"cfg": cfg} | ({"eta": fields.pop("eta")} if "eta" in fields else {})

    def nodes(g):
        more = {"layout": g.boxes()} if boxes else {}
        more |= {"seed": g.layout["seed_large"]} if mode == "noise" else {"prompt": g.prompt}
        guidance = g.add("Invert", model=g.large(), latent=g.encoded(), strength=w, window=fraction, mode=mode, **more, **fields)
        return g.sample_large(guidance, **sampling)

    return nodes


def attention(type, large, sampling={}, **fields):
    """BoxDiff or layout-guidance, on the kind of model that it was made for (Stable Diffusion, here `small` without boxes) or
    on the large one."""

    def nodes(g):
        guidance = g.add(type, layout=g.boxes(), **fields)
        return g.sample_large(guidance, **sampling) if large else g.sample_small(guidance, **sampling)

    return nodes


def multidiffusion(whole=False, **fields):
    """MultiDiffusion. The prompt outside the boxes names the background only or, with `whole`, is the whole prompt."""

    def nodes(g):
        words = {"prompt": g.prompt if whole else f"on {g.ground}", "region_prompt": f"{{phrase}} on {g.ground}"}
        return g.sample_large(type="MultiDiffusionSample", layout=g.boxes(), **words, **fields)

    return nodes


def reference(type="ReferenceImage", **fields):
    """Guidance by GLIGEN's enlarged image through another node than Invert."""
    return lambda g: g.sample_large(g.add(type, image=g.enlarged(), **fields), width=256, height=256)


# DemoFusion's skip residual on the enlarged image, without its dilated sampling and its renormalisation.
demofusion = reference(strength=1.0, window=1.0, schedule="demofusion", shared_noise=True)


def name_of(w, fraction, mode, more=""):
    return f"lsregen w={w if w == 'auto' else format(w, 'g')} f={fraction:g} {mode}{more}"


RIVALS = {
    "gligen": lambda g: f"{g.gligen()}.image",
    "gligen-large": lambda g: f"{g.gligen(width=256, height=256)}.image",
    "sd": lambda g: g.sample_small(),
    "xl": lambda g: g.sample_large(),
    "img2img .3": lsregen(1.0, 0.7, "noise"),
    "boxdiff": attention("BoxDiff", False, downscale=MAPS),
    "layout-guidance": attention("LayoutGuidance", False),
    "boxdiff xl": attention("BoxDiff", True, downscale=MAPS),
    "layout-guidance xl": attention("LayoutGuidance", True),
    "multidiffusion": multidiffusion(),
    "demofusion": demofusion,
}

# w = 0 is `xl`; w = 1 with noise is SDEdit.
GRID = {name_of(w, f, m): lsregen(w, f, m) for w in STRENGTHS for f in FRACTIONS for m in INVERSIONS}


def around(w, fraction, mode):
    """Variations of one strength and inversion with several shares of guided steps: masked to the boxes, with hard and with soft
    edges; `auto` strength, with and without a mask. With `mode: noise`, in the given share, also the noise
    from which the sampling starts."""
    out = {}
    for f in sorted({0.1, 0.2, fraction}):
        out[name_of(w, f, mode, " boxes")] = lsregen(w, f, mode, boxes=True)
        out[name_of(w, f, mode, " soft boxes")] = lsregen(w, f, mode, boxes=True, feather=0.05)
        out[name_of("auto", f, mode)] = lsregen("auto", f, mode, boxes=True, outside=1.0)
        out[name_of("auto", f, mode, " soft boxes")] = lsregen("auto", f, mode, boxes=True, feather=0.05)
    out[name_of(w, fraction, "noise", " shared")] = lsregen(w, fraction, "noise", shared_noise=True)
    return out


def others(w, fraction, mode):
    """One setting of LSReGen, and the other methods, with other scales of classifier-free guidance than the default ones; and
    MultiDiffusion's settings."""
    out = {name_of(w, fraction, mode, f" cfg={c:g}"): lsregen(w, fraction, mode, cfg=c) for c in (1.0, 3.0, 4.0, 5.0)}
    out |= {f"xl cfg={c:g}": lambda g, c=c: g.sample_large(cfg=c) for c in (1.0, 3.0, 4.0, 5.0)}
    out |= {f"sd cfg={c:g}": lambda g, c=c: g.sample_small(cfg=c) for c in (2.0, 7.5)}
    for c, large in ((2.0, False), (7.5, False), (4.0, True)):
        size = " xl" if large else ""
        out[f"boxdiff{size} cfg={c:g}"] = attention("BoxDiff", large, {"cfg": c}, downscale=MAPS)
        out[f"layout-guidance{size} cfg={c:g}"] = attention("LayoutGuidance", large, {"cfg": c})
    for c in (2.0, 4.0):
        for bootstrap in (0.2, 0.4):
            for whole in (False, True):
                name = f"multidiffusion cfg={c:g} bootstrap={bootstrap:g}" + " whole" * whole
                out[name] = multidiffusion(whole, cfg=c, bootstrap=bootstrap)
    for f in FRACTIONS:
        out[f"img2img f={f:g} cfg=4"] = lsregen(1.0, f, "noise", cfg=4.0)
    return out


def further():
    """Alternatives within the framework: other extractors of the same image, and other schedules of LSReGen's strength."""
    out = {"xl eta=1": lambda g: g.sample_large(eta=1.0)}
    for n in (2, 4, 8):
        for f in (0.2, 0.4, 0.6):
            out[f"lowpass n={n} f={f:g}"] = reference("LowPass", factor=n, window=f)
    for m in INVERSIONS:
        for w, f in ((0.1, 0.7), (0.25, 0.7), (0.5, 0.7)):
            out[name_of(w, f, m)] = lsregen(w, f, m)
        for f in (0.2, 0.4, 0.7):
            out[name_of(1.0, f, m, " cosine")] = lsregen(1.0, f, m, schedule="cosine")
        out[name_of(1.0, 1.0, m, " demofusion")] = lsregen(1.0, 1.0, m, schedule="demofusion")
    for f in (0.2, 0.4, 0.7):
        for eta in (0.5, 1.0):
            out[name_of(0.5, f, "ddim", f" eta={eta:g}")] = lsregen(0.5, f, "ddim", eta=eta)
        for w in (0.5, 1.0):
            out[name_of(w, f, "noise", " shared")] = lsregen(w, f, "noise", shared_noise=True)
        for outside in (0.1, 0.3):
            more = {"boxes": True, "feather": 0.1, "outside": outside}
            out[name_of(0.5, f, "ddim", f" outside={outside:g}")] = lsregen(0.5, f, "ddim", **more)
    out[name_of(0.5, 0.4, "noise", " eta=1")] = lsregen(0.5, 0.4, "noise", eta=1.0)
    return out


SAMPLERS = ({"sampler": "euler"}, {"sampler": "dpmpp_2m", "scheduler": "karras"}, {"sampler": "lcm"})


def samplers():
    """LSReGen, the rivals that act on the network's attention, and LowPass, under other samplers. GLIGEN's image is DDIM's."""
    out = {}
    for steps in SAMPLERS:
        name = " ".join(steps.values())
        out[f"lsregen w=0.75 f=0.4 {name}"] = lambda g, steps=steps: g.sample_large(
            g.add("Invert", model=g.large(), latent=g.encoded(), strength=0.75, window=0.4, prompt=g.prompt, **steps), **steps)
        out[f"lowpass n=4 f=0.4 {name}"] = lambda g, steps=steps: g.sample_large(
            g.add("LowPass", image=g.enlarged(), factor=4, window=0.4), width=256, height=256, **steps)
        out[f"boxdiff {name}"] = attention("BoxDiff", False, steps, downscale=MAPS)
        out[f"layout-guidance {name}"] = attention("LayoutGuidance", False, steps)
    return out


def graph(layout, methods):
    """Returns the graph that generates the images of these methods for a layout."""
    g = Graph(layout)
    for name, nodes in methods.items():
        g.save(name, nodes(g))
    return g

