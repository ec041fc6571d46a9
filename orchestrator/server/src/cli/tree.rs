//! Lines under lines, as people draw them.

/// A line, and what stands under it.
#[derive(Debug, Default)]
pub struct Node {
    /// The line.
    pub title: String,
    /// What stands under it.
    pub children: Vec<Node>,
}

impl Node {
    /// A line with nothing under it.
    pub fn leaf(title: impl Into<String>) -> Self {
        Self { title: title.into(), children: Vec::new() }
    }
}

/// Adds the tree to a text, each line on a new one.
pub fn draw(nodes: &[Node], text: &mut String) {
    draw_under(nodes, "", text);
}

fn draw_under(nodes: &[Node], indent: &str, text: &mut String) {
    for (position, node) in nodes.iter().enumerate() {
        let is_last = position + 1 == nodes.len();
        let (branch, deeper) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        text.push('\n');
        text.push_str(indent);
        text.push_str(branch);
        text.push_str(&node.title);
        draw_under(&node.children, &format!("{indent}{deeper}"), text);
    }
}
