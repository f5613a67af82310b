//! The founding of a cluster by several peers, as calls between them; and "to which cluster do you belong?".
//!
//! What is decided, and how, is [`founding`]'s business; here its messages travel and its record is
//! kept. The [`Desk`] answers [`FOUND`] from the first moment of a daemon to its last, whatever the peer is by
//! then: starting, waiting to join, founding, or a member. The call is open to whoever knows the cluster's secret,
//! for those who ask are members of nothing yet.
//!
//! The one rule: what a founding wants remembered is on disk before its answer leaves. So the desk holds its lock
//! across the write, and a disk that refuses ends the founding.

use crate::config::write_private;
use crate::consensus::founding::{
    self, Answer, Ask, AskKind, Belonging, Founding, Mail, Outcome, Plan, Record,
};
use crate::consensus::{Consensus, WeakConsensus};
use crate::error::{Context, Error, Kind, Result};
use crate::net::rpc::{Access, Call, Handler, Rpc};
use crate::runtime;
use crate::state::RaftId;
use async_trait::async_trait;
use libp2p::PeerId;
use smol::lock::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The call.
pub const FOUND: &str = "cluster.found";
/// The file, in the data folder: it goes where the Raft id goes.
pub const FILE: &str = "founding.json";
/// How long one answer may take.
pub const ASK_LIMIT: Duration = Duration::from_secs(3);
/// How often time passes for a founding.
const TICK: Duration = Duration::from_millis(100);
/// How often a waiting peer says for whom it waits.
const PROGRESS: Duration = Duration::from_secs(3);
/// What a founding may go on beyond its limit once enough peers are here: they are about to agree.
const ALMOST: Duration = Duration::from_secs(20);
/// How long a peer that could join a cluster waits for the answers of the other listed peers.
const HEAR_ALL: Duration = Duration::from_secs(1);
/// Largest record that is read, bytes; one of the longest list has a tenth of it.
const MAX_FILE: u64 = 1 << 20;

/// What this peer is, for those who ask.
enum Stage {
    /// Not known yet.
    Starting,
    /// Fresh, without a founding set: it waits to be let into a cluster, or founds one of its own.
    Fresh,
    /// The disk refused in the middle of a founding.
    Failed(Error),
    /// Founding a cluster with others.
    Founding(Box<Founding>),
    /// A member, or about to be one.
    Member(WeakConsensus, Option<Plan>),
}

/// Answers, from start to stop. Clone is cheap.
#[derive(Clone)]
pub struct Desk {
    inner: Arc<Inner>,
}

struct Inner {
    rpc: Rpc,
    data: PathBuf,
    stage: Mutex<Stage>,
    started: Instant,
    /// Full when an answer came that the founding has not looked at yet.
    news: (async_channel::Sender<()>, async_channel::Receiver<()>),
}

/// Reads the record of a data folder.
///
/// # Errors
/// When it is there and cannot be read, is damaged, or is of a newer version.
pub fn read_record(data: &Path) -> Result<Option<Record>> {
    let path = data.join(FILE);
    let doing = || format!("reading {}", path.display());
    let meta = match path.metadata() {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::from_io(doing(), &error)),
    };
    let damaged = |why: String| {
        Error::corrupt(format!(
            "{} is damaged ({why}): run `pinfold state cleanup` and join the others again",
            path.display()
        ))
    };
    if meta.len() > MAX_FILE {
        return Err(damaged(format!("{} bytes", meta.len())));
    }
    let text = std::fs::read(&path).context(doing())?;
    let record: Record = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
    if record.format > founding::FORMAT {
        return Err(Error::version(format!(
            "{} was written by a newer pinfold (format {}): start that version or a newer one",
            path.display(),
            record.format
        )));
    }
    Ok(Some(record))
}

/// Makes the record in a data folder, if there is one, that of a new Raft id: what this peer was told stays, what it
/// promised and founded under the old id goes.
///
/// # Errors
/// As [`read_record`], or when the disk refuses.
pub fn renew_record(data: &Path, raft_id: RaftId) -> Result<()> {
    let Some(Record { list, bootstrap, .. }) = read_record(data)? else { return Ok(()) };
    write_record(data, &Record { bootstrap, ..Record::new(raft_id, list) })
}

/// Writes the record of a data folder, durably.
fn write_record(data: &Path, record: &Record) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(record).map_err(|e| Error::internal(e.to_string()))?;
    text.push(b'\n');
    write_private(&data.join(FILE), &text)
}

impl Desk {
    /// Opens the desk for the data folder `data`. Once per host.
    pub fn open(rpc: &Rpc, data: &Path) -> Desk {
        let inner = Inner {
            rpc: rpc.clone(),
            data: data.to_owned(),
            stage: Mutex::new(Stage::Starting),
            started: Instant::now(),
            news: async_channel::bounded(1),
        };
        let desk = Desk { inner: Arc::new(inner) };
        rpc.register(FOUND, Access::Open, Arc::new(desk.clone()));
        desk
    }

    /// From now on this peer is a member; `chosen` is what it was founded with, if it was.
    pub async fn is_member(&self, consensus: &Consensus, chosen: Option<Plan>) {
        *self.inner.stage.lock().await = Stage::Member(consensus.downgrade(), chosen);
    }

    /// From now on this peer is known to be fresh, and without a founding set.
    pub async fn is_fresh(&self) {
        *self.inner.stage.lock().await = Stage::Fresh;
    }

    /// Writes down what this peer was told and may be told again ([`founding::Restart`]), beside what it promised. A
    /// founding is over with that: its record would be written over otherwise.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn remember(&self, raft_id: RaftId, list: Vec<String>, bootstrap: Vec<String>) -> Result<()> {
        let mut stage = self.inner.stage.lock().await;
        *stage = Stage::Starting;
        let data = self.inner.data.clone();
        runtime::unblock(move || {
            let record = read_record(&data)?;
            if record.is_none() && list.is_empty() && bootstrap.is_empty() {
                return Ok(());
            }
            let before = record.unwrap_or_else(|| Record::new(raft_id, Vec::new()));
            if before.list == list && before.bootstrap == bootstrap {
                return Ok(());
            }
            write_record(&data, &Record { list, bootstrap, ..before })
        })
        .await
    }

    /// Asks a peer to which cluster it belongs.
    ///
    /// # Errors
    /// It did not answer.
    pub async fn ask(&self, peer: PeerId, list: &[String], raft_id: RaftId) -> Result<Answer> {
        let ask = Ask { list: list.to_vec(), raft_id, kind: AskKind::Hello };
        self.inner.rpc.call(peer, FOUND, &ask, ASK_LIMIT).await
    }

    /// Founds a cluster with the other listed peers, or finds out that there is one already.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] after `limit`, saying who is missing and why; [`Kind::Conflict`] when a person must
    /// decide; what the disk says.
    pub async fn found(&self, founding: Founding, limit: Duration) -> Result<Outcome> {
        *self.inner.stage.lock().await = Stage::Founding(Box::new(founding));
        let (deadline, mut told) = (Instant::now() + limit, Instant::now());
        let mut joining: Option<Instant> = None;
        loop {
            let (outcome, mail, state, unheard) = {
                let mut stage = self.inner.stage.lock().await;
                let now = self.now();
                let mail = self.with(&mut stage, |founding| founding.tick(now)).await?;
                let Stage::Founding(founding) = &*stage else {
                    return Err(Error::internal("a founding ended without an outcome"));
                };
                let state = (founding.present(now), founding.needed(), founding.missing(now));
                (founding.outcome(now), mail, state, founding.is_unheard())
            };
            match outcome {
                Outcome::Open => self.post(mail),
                Outcome::Refuse(error) => return Err(error),
                // Whoever has not answered yet may be of another cluster, and then it is not ours to choose.
                Outcome::Join(_)
                    if unheard && joining.get_or_insert_with(Instant::now).elapsed() < HEAR_ALL => {}
                done => return Ok(done),
            }
            let (present, needed, missing) = state;
            let late = if present < needed { deadline } else { deadline + ALMOST };
            let words = || {
                let named = |(peer, why): &(String, String)| match why.contains(peer) {
                    true => why.clone(),
                    false => format!("{peer}: {why}"),
                };
                let missing: Vec<String> = missing.iter().map(named).collect();
                let list = present + missing.len();
                format!(
                    "{present} of the {list} peers in cluster.peers are here, {needed} are needed. {}",
                    missing.join(" | ")
                )
            };
            if Instant::now() >= late {
                return Err(Error::unavailable(format!(
                    "no cluster within consensus.raft.wait_for_leader_timeout ({limit:?}): {}",
                    words()
                )));
            }
            if told.elapsed() >= PROGRESS && !missing.is_empty() {
                told = Instant::now();
                log::info!(target: "cluster", "waiting for the founding set: {}", words());
            }
            let news = async {
                let _ = self.inner.news.1.recv().await;
            };
            smol::future::or(news, runtime::sleep(TICK)).await;
        }
    }

    fn now(&self) -> u64 {
        self.inner.started.elapsed().as_millis() as u64
    }

    /// Lets the founding do something, and saves what it wants remembered before anybody hears of it.
    async fn with<T>(&self, stage: &mut Stage, work: impl FnOnce(&mut Founding) -> T) -> Result<T> {
        let founding = match stage {
            Stage::Founding(founding) => founding,
            Stage::Failed(error) => return Err(error.clone()),
            _ => return Err(Error::unavailable("this peer does not found a cluster now")),
        };
        let result = work(founding);
        if let Some(record) = founding.unsaved() {
            let data = self.inner.data.clone();
            if let Err(error) = runtime::unblock(move || write_record(&data, &record)).await {
                // What it has in mind is not on disk: it must not say another word.
                let error = error.context("the founding cannot be remembered");
                *stage = Stage::Failed(error.clone());
                return Err(error);
            }
        }
        Ok(result)
    }

    /// Sends questions; each answer, or the reason why there is none, comes back to the founding.
    fn post(&self, mail: Mail) {
        for (to, ask) in mail {
            let desk = self.clone();
            runtime::spawn(async move {
                let answer = match to.parse::<PeerId>() {
                    Ok(peer) => desk.inner.rpc.call::<_, Answer>(peer, FOUND, &ask, ASK_LIMIT).await,
                    Err(error) => Err(Error::invalid(error.to_string())),
                };
                let answer = answer.map_err(|error| {
                    // Which call it was says nothing to whoever waits for a peer.
                    let words = error.message();
                    let words = words.split_once(&format!("\"{FOUND}\": ")).map_or(words, |(_, rest)| rest);
                    match error.kind() {
                        // An older pinfold knows no founding, but it is a peer of some cluster all the same.
                        Kind::Version => format!("{words} (or list it in cluster.bootstrap and join it)"),
                        _ => words.to_owned(),
                    }
                });
                desk.heard(&to, &ask.kind, answer).await;
            })
            .detach();
        }
    }

    async fn heard(&self, from: &str, asked: &AskKind, answer: Result<Answer, String>) {
        let now = self.now();
        let mail = {
            let mut stage = self.inner.stage.lock().await;
            self.with(&mut stage, |founding| founding.heard(now, from, asked, answer)).await
        };
        // Without a founding any more, or with a disk that refuses, `found` says so.
        self.post(mail.unwrap_or_default());
        let _ = self.inner.news.0.try_send(());
    }

    async fn answer(&self, from: PeerId, ask: &Ask) -> Result<Answer> {
        let from = from.to_string();
        let mut stage = self.inner.stage.lock().await;
        match &mut *stage {
            Stage::Starting => Ok(Answer::Starting),
            Stage::Fresh => Ok(Answer::OtherList(Vec::new())),
            Stage::Founding(_) | Stage::Failed(_) => {
                let now = self.now();
                let answer = self.with(&mut stage, |founding| founding.answer(now, &from, ask)).await;
                let _ = self.inner.news.0.try_send(());
                answer
            }
            Stage::Member(consensus, chosen) => {
                let founders = chosen.as_ref().filter(|plan| plan.has(&from, ask.raft_id));
                if let Some(plan) = founders {
                    return Ok(Answer::Chosen(plan.clone()));
                }
                let Some(consensus) = consensus.upgrade() else { return Ok(Answer::Starting) };
                let status = consensus.status();
                let mut members: Vec<String> =
                    consensus.members().iter().map(|m| m.peer_id.to_string()).collect();
                members.sort_unstable();
                if members.is_empty() || status.removed {
                    return Ok(Answer::Starting);
                }
                Ok(Answer::Member(Belonging {
                    cluster_id: status.cluster_id,
                    members,
                    applied: status.applied,
                }))
            }
        }
    }
}

#[async_trait]
impl Handler for Desk {
    async fn handle(&self, call: &mut Call) -> Result<()> {
        let ask: Ask = call.need().await?;
        if ask.list.len() > founding::MAX_LISTED {
            return Err(Error::too_large(format!(
                "peer {} has {} peers in its list, more than {}",
                call.peer(),
                ask.list.len(),
                founding::MAX_LISTED
            )));
        }
        let answer = self.answer(call.peer(), &ask).await?;
        call.send(&answer).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_survives_and_damage_is_told() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(read_record(dir.path()).expect("none"), None);
        let record = Record::new(9, vec!["a".into(), "b".into()]);
        write_record(dir.path(), &record).expect("written");
        assert_eq!(read_record(dir.path()).expect("read"), Some(record.clone()));
        write_record(dir.path(), &Record { format: 99, ..record }).expect("written");
        assert_eq!(read_record(dir.path()).unwrap_err().kind(), Kind::Version);
        std::fs::write(dir.path().join(FILE), "{\"format\":").expect("half a file");
        let error = read_record(dir.path()).unwrap_err();
        assert!(error.kind() == Kind::Corrupt && error.message().contains("state cleanup"), "{error}");
    }
}
