//! A graph as an SVG image: layers from left to right, and a frame around the nodes of each included graph.
//!
//! An included graph is laid out first, and then stands in the layout of the outer graph as one box.

use std::collections::HashMap;
use std::fmt::Write;

/// A node: its name, in which `/` separates the included graphs that it is part of, and its type.
pub struct SvgNode<'a> {
    pub name: &'a str,
    pub node_type: &'a str,
}

/// A link between two nodes, which are given by their positions in the list of nodes.
pub struct SvgLink {
    pub from: usize,
    pub to: usize,
    pub label: String,
}

/// Sizes in pixels.
const NAME: f64 = 13.0;
const SMALL: f64 = 11.0;
const PADDING: f64 = 12.0;
const NODE_HEIGHT: f64 = 46.0;
const ROW_GAP: f64 = 22.0;
const TITLE: f64 = 20.0;

const STYLE: &str = "\
text { font-family: ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; fill: #1f2328; }
.small { fill: #59636e; }
.paper { fill: #ffffff; }
.node { fill: #f6f8fa; stroke: #57606a; }
.group { fill: none; stroke: #8250df; stroke-dasharray: 5 4; }
.link { fill: none; stroke: #818b98; stroke-width: 1.3; }
.head { fill: #818b98; }
.label { fill: #59636e; }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc; }
.small { fill: #9198a1; }
.paper { fill: #0d1117; }
.node { fill: #151b23; stroke: #9198a1; }
.group { stroke: #ab7df8; }
.label { fill: #9198a1; }
}
";

#[derive(Clone, Copy, Default)]
struct Rect {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

/// The boxes of a graph, from its upper left corner.
#[derive(Default)]
struct Layout {
    /// Each with the position of its node.
    nodes: Vec<(usize, Rect)>,
    /// Each with the name of the included graph.
    groups: Vec<(String, Rect)>,
    width: f64,
    height: f64,
}

/// Draws nodes and links. Names need no escaping: the check allows only letters, digits, `_`, `-` and `/`.
pub fn svg(nodes: &[SvgNode<'_>], links: &[SvgLink]) -> String {
    let layout = layout(nodes, links, "");
    let (width, height) = (layout.width + 2.0 * PADDING, layout.height + 2.0 * PADDING);
    let mut places = vec![Rect::default(); nodes.len()];
    for (node, place) in &layout.nodes {
        places[*node] = *place;
    }
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"-{PADDING} \
         -{PADDING} {width:.0} {height:.0}\">\n<style>\n{STYLE}</style>\n<defs><marker id=\"head\" viewBox=\"0 0 8 8\" \
         refX=\"8\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path class=\"head\" d=\"M0 0L8 \
         4L0 8z\"/></marker></defs>\n<rect class=\"paper\" x=\"-{PADDING}\" y=\"-{PADDING}\" width=\"{width:.0}\" \
         height=\"{height:.0}\"/>\n"
    );
    for (name, Rect { x, y, width, height }) in &layout.groups {
        let _ = writeln!(
            text,
            "<rect class=\"group\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"8\"/>"
        );
        write_text(&mut text, "small", SMALL, (x + PADDING, y + 15.0), name);
    }
    for SvgLink { from, to, .. } in links {
        let ((x0, y0), (x1, y1)) = ends(places[*from], places[*to]);
        let bend = ((x1 - x0).abs() / 2.0).max(30.0);
        let _ = writeln!(
            text,
            "<path class=\"link\" marker-end=\"url(#head)\" d=\"M{x0:.1} {y0:.1}C{:.1} {y0:.1} {:.1} {y1:.1} {x1:.1} \
             {y1:.1}\"/>",
            x0 + bend,
            x1 - bend
        );
    }
    for (node, Rect { x, y, width, height }) in &layout.nodes {
        let _ = writeln!(
            text,
            "<rect class=\"node\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"5\"/>"
        );
        write_text(&mut text, "name", NAME, (x + PADDING, y + 20.0), short(nodes[*node].name));
        write_text(&mut text, "small", SMALL, (x + PADDING, y + 36.0), nodes[*node].node_type);
    }
    let mut labelled = vec![0; nodes.len()];
    for SvgLink { from, to, label } in links {
        // In the gap before the node that the link leads to, where there is space for it.
        let (_, (x, y)) = ends(places[*from], places[*to]);
        let y = y - 4.0 - 12.0 * f64::from(labelled[*to]);
        labelled[*to] += 1;
        let (x, width) = (x - 12.0 - width_of(label, SMALL), width_of(label, SMALL));
        let top = y - 9.0;
        let _ =
            writeln!(text, "<rect class=\"paper\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"11\"/>");
        write_text(&mut text, "label", SMALL, (x, y), label);
    }
    text + "</svg>\n"
}

/// The points at which a link leaves a node and reaches another.
fn ends(from: Rect, to: Rect) -> ((f64, f64), (f64, f64)) {
    ((from.x + from.width, from.y + from.height / 2.0), (to.x, to.y + to.height / 2.0))
}

/// The name without the included graphs that it is part of: the frames say them.
fn short(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// The width of a text, which the image prescribes to the font of the reader.
fn width_of(text: &str, size: f64) -> f64 {
    0.61 * size * text.chars().count() as f64
}

fn write_text(svg: &mut String, class: &str, size: f64, (x, y): (f64, f64), text: &str) {
    let length = width_of(text, size);
    let _ = writeln!(
        svg,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" textLength=\"{length:.1}\" \
         lengthAdjust=\"spacingAndGlyphs\">{text}</text>"
    );
}

/// Lays out the nodes whose names begin with `prefix`.
fn layout(nodes: &[SvgNode<'_>], links: &[SvgLink], prefix: &str) -> Layout {
    let mut members: Vec<Layout> = vec![];
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut member_of = vec![None; nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        let Some(rest) = node.name.strip_prefix(prefix) else { continue };
        let name = match rest.split_once('/') {
            Some((group, _)) => format!("{prefix}{group}/"),
            None => node.name.to_string(),
        };
        let is_new = !known.contains_key(&name);
        member_of[index] = Some(*known.entry(name.clone()).or_insert(members.len()));
        if is_new {
            let content = if name.ends_with('/') { framed(nodes, links, &name) } else { boxed(index, node) };
            members.push(content);
        }
    }
    let pairs = links.iter().filter_map(|link| Some((member_of[link.from]?, member_of[link.to]?)));
    let pairs: Vec<_> = pairs.filter(|(from, to)| from != to).collect();
    let labels = links.iter().filter(|link| member_of[link.to].is_some());
    let gap = 40.0 + labels.map(|link| width_of(&link.label, SMALL)).fold(0.0, f64::max);
    // The labels of links from outside stand before the first layer.
    let is_entered = links.iter().any(|link| member_of[link.from].is_none() && member_of[link.to].is_some());
    let start = if is_entered { gap } else { 0.0 };
    placed(members, &layers(&pairs, &member_of), start, gap)
}

/// The box of one node.
fn boxed(index: usize, node: &SvgNode<'_>) -> Layout {
    let width = width_of(short(node.name), NAME).max(width_of(node.node_type, SMALL)) + 2.0 * PADDING;
    let place = Rect { x: 0.0, y: 0.0, width, height: NODE_HEIGHT };
    Layout { nodes: vec![(index, place)], groups: vec![], width, height: NODE_HEIGHT }
}

/// The layout of an included graph, with its frame.
fn framed(nodes: &[SvgNode<'_>], links: &[SvgLink], name: &str) -> Layout {
    let inner = layout(nodes, links, name);
    let title = name.trim_end_matches('/');
    let width = inner.width.max(width_of(title, SMALL)) + 2.0 * PADDING;
    let height = inner.height + TITLE + 2.0 * PADDING;
    let mut framed = Layout { width, height, ..Layout::default() };
    framed.groups.push((title.into(), Rect { x: 0.0, y: 0.0, width, height }));
    framed.add(inner, PADDING, TITLE + PADDING);
    framed
}

/// The members of each layer, from left to right. The layer of a member is the length of the longest path to it. Within a
/// layer, members are ordered by the mean place of their neighbours, so that few links cross.
fn layers(pairs: &[(usize, usize)], member_of: &[Option<usize>]) -> Vec<Vec<usize>> {
    let count = member_of.iter().flatten().max().map_or(0, |last| last + 1);
    let (mut before, mut after) = (vec![vec![]; count], vec![vec![]; count]);
    for &(from, to) in pairs {
        before[to].push(from);
        after[from].push(to);
    }
    let level = levels(&before, &after);
    let mut layers: Vec<Vec<usize>> = vec![vec![]; level.iter().max().map_or(0, |last| last + 1)];
    for (member, &level) in level.iter().enumerate() {
        layers[level].push(member);
    }
    layers.retain(|layer| !layer.is_empty());
    let mut rank = vec![0f64; count];
    for round in 0..4 {
        let order: Vec<usize> =
            if round % 2 == 0 { (0..layers.len()).collect() } else { (0..layers.len()).rev().collect() };
        for layer in order {
            let mean = |member: usize| {
                let near = if round % 2 == 0 { &before[member] } else { &after[member] };
                let (sum, n) = near.iter().fold((0.0, 0.0), |(sum, n), near| (sum + rank[*near], n + 1.0f64));
                if n > 0.0 { sum / n } else { rank[member] }
            };
            let mut sorted: Vec<_> = layers[layer].iter().map(|&member| (mean(member), member)).collect();
            sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
            let middle = sorted.len() as f64 / 2.0;
            for (place, (_, member)) in sorted.iter().enumerate() {
                rank[*member] = place as f64 - middle;
            }
            layers[layer] = sorted.into_iter().map(|(_, member)| member).collect();
        }
    }
    layers
}

/// The length of the longest path to each member. Two included graphs may need each other: of a cycle, the first member is
/// taken before those that it needs.
fn levels(before: &[Vec<usize>], after: &[Vec<usize>]) -> Vec<usize> {
    let mut missing: Vec<usize> = before.iter().map(Vec::len).collect();
    let mut level = vec![0; before.len()];
    let mut done = vec![false; before.len()];
    let mut ready: Vec<usize> = (0..before.len()).filter(|member| missing[*member] == 0).collect();
    let mut first_left = 0;
    loop {
        let Some(member) = ready.pop() else {
            let Some(next) = (first_left..done.len()).find(|member| !done[*member]) else { return level };
            first_left = next;
            ready.push(next);
            continue;
        };
        if std::mem::replace(&mut done[member], true) {
            continue;
        }
        for &next in after[member].iter().filter(|next| !done[**next]).collect::<Vec<_>>() {
            level[next] = level[next].max(level[member] + 1);
            missing[next] -= 1;
            if missing[next] == 0 {
                ready.push(next);
            }
        }
    }
}

/// Places the members: layers beside each other from `start` on, and the members of a layer below each other, around one middle.
fn placed(members: Vec<Layout>, layers: &[Vec<usize>], start: f64, gap: f64) -> Layout {
    let size = |layer: &Vec<usize>| layer.iter().map(|&member| members[member].height + ROW_GAP).sum::<f64>();
    let height = layers.iter().map(size).fold(0.0, f64::max) - ROW_GAP;
    let sizes: Vec<f64> = layers.iter().map(size).collect();
    let mut layout = Layout { height: height.max(0.0), ..Layout::default() };
    let mut members: Vec<_> = members.into_iter().map(Some).collect();
    let mut x = start;
    for (layer, size) in layers.iter().zip(sizes) {
        let mut y = (height - (size - ROW_GAP)) / 2.0;
        let mut widest = 0.0_f64;
        for &member in layer {
            let Some(content) = members[member].take() else { continue };
            let (width, height) = (content.width, content.height);
            layout.add(content, x, y);
            widest = widest.max(width);
            y += height + ROW_GAP;
        }
        layout.width = x + widest;
        x += widest + gap;
    }
    layout
}

impl Layout {
    /// Adds the boxes of another layout, moved.
    fn add(&mut self, other: Layout, x: f64, y: f64) {
        let moved = |place: Rect| Rect { x: place.x + x, y: place.y + y, ..place };
        self.nodes.extend(other.nodes.into_iter().map(|(node, place)| (node, moved(place))));
        self.groups.extend(other.groups.into_iter().map(|(name, place)| (name, moved(place))));
    }
}
