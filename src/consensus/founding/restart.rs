//! Whether a member may go on with the list in its service.json, and with the bootstrap addresses it was given.
//!
//! ipfs-cluster 0.3 rewrote `cluster.peers` whenever the membership changed; nobody rewrites service.json here,
//! so the list grows old while peers come and go by join and removal, and that must never keep a cluster from
//! coming back after a power cut. Hence:
//!
//! - A list that is the one this peer started with before is never refused. What it lacks or has too much is told.
//! - A list that was changed (or is new) must name the members, no more and no fewer, as the freshest member in
//!   reach knows them: somebody has just edited it, is there to read the sentence, and means something by it.
//! - A bootstrap address of a peer that belongs to another cluster is refused when it is new: somebody has just
//!   said "join that one". One that this peer started with before only tells where it once came from.
//! - A cluster of one is what the others of its list will join: it is refused only when one of them belongs to
//!   another cluster already.

use super::plan::Record;
use super::{beyond, differs, Answer, Belonging};
use crate::error::{Error, Result};

/// What a member starts with.
#[derive(Debug)]
pub struct Restart<'a> {
    /// This peer.
    pub us: &'a str,
    /// Its list, sorted and with itself; empty without one.
    pub list: &'a [String],
    /// What it remembers.
    pub record: Option<&'a Record>,
    /// Its cluster, as its own state knows it.
    pub own: &'a Belonging,
}

impl Restart<'_> {
    /// Whether the list has to be compared with the members.
    pub fn is_changed(&self) -> bool {
        !self.list.is_empty() && self.record.is_none_or(|r| r.list != self.list)
    }

    /// Of these peers, those that nobody has told this peer of before and that are no members: they are to be asked where
    /// they belong.
    pub fn strangers<'a>(&self, bootstrap: &'a [String]) -> Vec<&'a String> {
        let before = self.record.map_or(&[][..], |r| &r.bootstrap);
        let known = |p: &String| *p == self.us || before.contains(p) || self.own.members.contains(p);
        bootstrap.iter().filter(|p| !known(p)).collect()
    }

    /// Judges bootstrap addresses by what [`Restart::strangers`] answered.
    ///
    /// # Errors
    /// [`crate::Kind::Conflict`] when one of them belongs to another cluster.
    pub fn judge_bootstrap(&self, answers: &[(String, Answer)]) -> Result<()> {
        for (peer, answer) in answers {
            match answer {
                Answer::Member(theirs) if theirs.cluster_id != self.own.cluster_id => {
                    return Err(another_cluster(peer, theirs.cluster_id, self.own.cluster_id))
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What is worth a word of a list that may stay as it is.
    pub fn notice(&self) -> Option<String> {
        let (missing, extra) = (beyond(self.list, &self.own.members), beyond(&self.own.members, self.list));
        if self.list.is_empty() || (missing.is_empty() && extra.is_empty()) {
            return None;
        }
        let words = |what: &str, peers: &[&str]| {
            if peers.is_empty() {
                String::new()
            } else {
                format!("; {what}: {}", peers.join(", "))
            }
        };
        Some(format!(
            "cluster.peers is not the list of members any more{}{}; the members count, correct the list at leisure",
            words("listed and not a member", &missing),
            words("a member and not listed", &extra)
        ))
    }

    /// Judges a changed list by what listed peers and members answered.
    ///
    /// # Errors
    /// [`crate::Kind::Conflict`] with the difference and both ways out.
    pub fn judge(&self, answers: &[(String, Answer)]) -> Result<()> {
        let mut freshest = self.own;
        for (peer, answer) in answers {
            let Answer::Member(theirs) = answer else { continue };
            if theirs.cluster_id == self.own.cluster_id {
                if theirs.applied > freshest.applied {
                    freshest = theirs;
                }
            } else if self.list.contains(peer) && !self.own.members.contains(peer) {
                return Err(another_cluster(peer, theirs.cluster_id, self.own.cluster_id));
            }
        }
        let alone = self.own.members == [self.us.to_owned()] && freshest.members == self.own.members;
        let same = self.list == freshest.members;
        if alone || same {
            return Ok(());
        }
        Err(differs(self.list, freshest, self.us))
    }
}

/// The sentence for a peer whose data is of another cluster than the one it is told to be in.
fn another_cluster(peer: &str, theirs: u64, ours: u64) -> Error {
    Error::conflict(format!(
        "the data of this peer belongs to the cluster {ours:016x}, and peer {peer} to {theirs:016x}: to give up this one and join the other, run `pinfold state cleanup` (it keeps the data as raft.old.0) and start again; to go on in this one, take {peer} out of --bootstrap, cluster.bootstrap and cluster.peers. Nothing was changed"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> Vec<String> {
        all.iter().map(|n| (*n).to_owned()).collect()
    }

    fn cluster(id: u64, members: &[&str], applied: u64) -> Belonging {
        Belonging { cluster_id: id, members: names(members), applied }
    }

    fn judge(
        list: &[&str],
        before: Option<&[&str]>,
        members: &[&str],
        answers: &[(&str, Belonging)],
    ) -> Result<()> {
        let (list, own) = (names(list), cluster(1, members, 10));
        let record = before.map(|list| Record::new(1, names(list)));
        let restart = Restart { us: "a", list: &list, record: record.as_ref(), own: &own };
        if !restart.is_changed() {
            return Ok(());
        }
        let answers: Vec<_> =
            answers.iter().map(|(p, b)| ((*p).to_owned(), Answer::Member(b.clone()))).collect();
        restart.judge(&answers)
    }

    #[test]
    fn an_old_list_never_keeps_a_cluster_down() {
        // Whatever joined or was removed meanwhile, whoever was awaited and never came.
        for members in [&["a"][..], &["a", "b"], &["a", "b", "c", "d"], &["a", "x", "y"]] {
            judge(&["a", "b", "c"], Some(&["a", "b", "c"]), members, &[]).expect("the same list");
        }
        judge(&[], Some(&["a", "b", "c"]), &["a", "x"], &[]).expect("no list");
    }

    #[test]
    fn a_changed_list_must_name_the_members() {
        judge(&["a", "b", "c"], None, &["a", "b", "c"], &[]).expect("equal");
        judge(&["a", "b"], Some(&["a", "b", "c"]), &["a", "b"], &[]).expect("corrected after a removal");
        let error = judge(&["a", "b", "e"], Some(&["a", "b", "c"]), &["a", "b", "c"], &[]).unwrap_err();
        assert!(error.message().contains("not a member, but listed: e"), "{error}");
        assert!(error.message().contains("a member, but not listed: c"), "{error}");
        assert!(error.message().contains("peers rm") && error.message().contains("service.json"), "{error}");
    }

    #[test]
    fn the_freshest_member_in_reach_counts() {
        // d joined while a was away, and whoever edits the lists wrote it in.
        let told = [("b", cluster(1, &["a", "b", "c", "d"], 50))];
        judge(&["a", "b", "c", "d"], Some(&["a", "b", "c"]), &["a", "b", "c"], &told).expect("right");
        judge(&["a", "b", "c", "d"], Some(&["a", "b", "c"]), &["a", "b", "c"], &[]).expect_err("unknown");
        let stale = [("b", cluster(1, &["a", "b", "c", "d"], 5))];
        judge(&["a", "b", "c", "d"], Some(&["a", "b", "c"]), &["a", "b", "c"], &stale).expect_err("older");
    }

    #[test]
    fn a_cluster_of_one_is_a_beginning_unless_the_others_have_begun_without_it() {
        judge(&["a", "b", "c"], None, &["a"], &[]).expect("they will join");
        let elsewhere = [("b", cluster(2, &["b", "c"], 5))];
        let error = judge(&["a", "b", "c"], None, &["a"], &elsewhere).unwrap_err();
        assert!(error.message().contains("state cleanup"), "{error}");
        // A member of ours that went astray is its own problem, not a reason to stay down.
        judge(&["a", "b"], None, &["a", "b"], &elsewhere).expect("b is the stranger");
    }

    #[test]
    fn only_a_new_bootstrap_address_says_that_the_cluster_is_to_be_changed() {
        let own = cluster(1, &["a", "b"], 1);
        let bootstrap = names(&["a", "b", "old", "new"]);
        let record = Record { bootstrap: names(&["old"]), ..Record::new(1, Vec::new()) };
        let restart = Restart { us: "a", list: &[], record: Some(&record), own: &own };
        assert_eq!(restart.strangers(&bootstrap), ["new"]);
        assert_eq!(Restart { record: None, ..restart }.strangers(&bootstrap), ["old", "new"]);
        let answer = |id| [("new".to_owned(), Answer::Member(cluster(id, &["new"], 1)))];
        restart.judge_bootstrap(&answer(1)).expect("it is one of ours by now");
        restart.judge_bootstrap(&[("new".to_owned(), Answer::Starting)]).expect("nobody knows");
        let error = restart.judge_bootstrap(&answer(2)).unwrap_err();
        assert!(error.message().contains("state cleanup"), "{error}");
    }

    #[test]
    fn what_changed_is_told() {
        let (list, own) = (names(&["a", "b"]), cluster(1, &["a", "c"], 1));
        let notice = Restart { us: "a", list: &list, record: None, own: &own }.notice().expect("a notice");
        assert!(notice.contains("listed and not a member: b; a member and not listed: c"), "{notice}");
        let own = cluster(1, &["a", "b"], 1);
        assert!(Restart { us: "a", list: &list, record: None, own: &own }.notice().is_none());
    }
}
