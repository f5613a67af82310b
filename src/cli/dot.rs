//! `health graph` as text: a graph in the DOT language, for Graphviz.
//!
//! Cluster peers above, their IPFS nodes below; the peer that answered has a double border. Nodes and
//! edges come in the order of the sorted ids, so that two graphs of the same cluster can be compared.

use crate::api::types::ConnectGraph;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// The graph; with `all`, IPFS nodes that belong to no cluster peer too.
pub fn graph(graph: &ConnectGraph, all: bool) -> String {
    let peers: BTreeSet<&str> = graph
        .cluster_links
        .iter()
        .flat_map(|(p, to)| std::iter::once(p).chain(to))
        .map(String::as_str)
        .collect();
    let ipfs: BTreeSet<&str> = graph.cluster_to_ipfs.values().map(String::as_str).collect();
    let mut names: BTreeMap<&str, String> = BTreeMap::new();
    let mut out = String::from("digraph cluster {\n/* The nodes of the connectivity graph */\n");

    out.push_str("/* The cluster-service peers */\nsubgraph  {\nrank=\"min\"\n");
    for (i, peer) in peers.iter().enumerate() {
        let own = *peer == graph.cluster_id;
        let trusted = graph.cluster_trust_links.get(*peer).copied().unwrap_or(false);
        let name = format!("{}{i}", if trusted && !own { "T" } else { "C" });
        let color = if own { "orange" } else { "darkorange3" };
        let border = if own { " peripheries=2" } else { "" };
        let witness = graph.witnesses.iter().any(|w| w == peer);
        let shape = if witness { "octagon" } else { "box3d" };
        let called = graph.id_to_peername.get(*peer).map_or("", String::as_str);
        let label = match witness {
            true => label(&format!("{called} (witness)"), peer),
            false => label(called, peer),
        };
        let _ = writeln!(
            out,
            "{name} [label={label} shape=\"{shape}\" style=\"filled\" color=\"{color}\" fontname=\"Arial\"{border} ]"
        );
        names.insert(peer, name);
    }
    out.push_str("}\n\n/* The ipfs peers linked to cluster peers */\nsubgraph  {\nrank=\"max\"\n");
    let mut nodes: Vec<(&str, bool)> = ipfs.iter().map(|id| (*id, true)).collect();
    if all {
        let others: BTreeSet<&str> = graph
            .ipfs_links
            .iter()
            .flat_map(|(p, to)| std::iter::once(p).chain(to))
            .map(String::as_str)
            .filter(|id| !ipfs.contains(id))
            .collect();
        nodes.extend(others.into_iter().map(|id| (id, false)));
    }
    for (i, (id, ours)) in nodes.iter().enumerate() {
        let missing = id.is_empty();
        let color = if missing { "firebrick1" } else { "turquoise3" };
        let style = if *ours { "filled" } else { "" };
        let name = format!("I{i}");
        let _ = writeln!(
            out,
            "{name} [label={} shape=\"cylinder\" style=\"{style}\" color=\"{color}\" fontname=\"Arial\" ]",
            label("IPFS", id)
        );
        names.insert(id, name);
    }
    out.push_str("}\n\n/* Edges representing active connections in the cluster */\n");
    let mut edges = |title: &str, links: &mut dyn Iterator<Item = (&str, &str)>| {
        let _ = writeln!(out, "/* {title} */");
        for (from, to) in links {
            if let (Some(from), Some(to)) = (names.get(from), names.get(to)) {
                let _ = writeln!(out, "{from} -> {to}");
            }
        }
    };
    edges("The connections among cluster-service peers", &mut pairs(&graph.cluster_links));
    edges(
        "The connections between cluster peers and their ipfs daemons",
        &mut graph.cluster_to_ipfs.iter().map(|(c, i)| (c.as_str(), i.as_str())),
    );
    edges("The swarm peer connections among ipfs daemons in the cluster", &mut pairs(&graph.ipfs_links));
    out.push_str("}\n");
    out
}

fn pairs(links: &BTreeMap<String, Vec<String>>) -> impl Iterator<Item = (&str, &str)> {
    links.iter().flat_map(|(from, to)| {
        let mut to: Vec<&str> = to.iter().map(String::as_str).collect();
        to.sort_unstable();
        to.into_iter().map(move |to| (from.as_str(), to))
    })
}

/// `< <B> name </B> <BR/> <B> 12*abcdef </B> >`, with what HTML would misread escaped.
fn label(name: &str, id: &str) -> String {
    let escape = |text: &str| {
        text.chars().filter(|c| !c.is_control()).fold(String::new(), |mut out, c| {
            match c {
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '&' => out.push_str("&amp;"),
                c => out.push(c),
            }
            out
        })
    };
    let letters: Vec<char> = id.chars().collect();
    let short: String = if letters.len() > 8 {
        letters[..2].iter().chain(['*'].iter()).chain(&letters[letters.len() - 6..]).collect()
    } else {
        id.to_string()
    };
    format!("< <B> {} </B> <BR/> <B> {} </B> >", escape(name), escape(&short))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_has_peers_nodes_and_edges() {
        let mut g = ConnectGraph { cluster_id: "12D3KooWaaaaaa".into(), ..ConnectGraph::default() };
        for (a, b) in [("12D3KooWaaaaaa", "12D3KooWbbbbbb"), ("12D3KooWbbbbbb", "12D3KooWaaaaaa")] {
            g.cluster_links.insert(a.into(), vec![b.into()]);
            g.cluster_to_ipfs.insert(a.into(), format!("Qm{a}"));
            g.id_to_peername.insert(a.into(), "<n>".into());
        }
        g.ipfs_links.insert("Qm12D3KooWaaaaaa".into(), vec!["QmStranger".into()]);
        let text = graph(&g, false);
        assert!(text.starts_with("digraph cluster {\n") && text.ends_with("}\n"), "{text}");
        for line in
            ["C0 -> C1", "C1 -> C0", "C0 -> I0", "C1 -> I1", "peripheries=2", "12*aaaaaa", "&lt;n&gt;"]
        {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(!text.contains("tranger"));
        assert!(graph(&g, true).contains("I0 -> I2"), "{}", graph(&g, true));
    }
}
