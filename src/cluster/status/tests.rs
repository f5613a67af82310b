//! The merge: every peer, every pin, every filter, against a plain model of what must come out.

use super::*;
use crate::runtime::block_on;
use crate::state::Role;
use crate::store::memory::MemoryState;
use crate::store::WriteBatch;
use std::collections::HashMap;

/// Peers of the cluster in these tests.
const PEERS: usize = 7;

fn cid(n: u32) -> Cid {
    let hash = multihash::Multihash::wrap(0x00, &n.to_be_bytes()).expect("four bytes");
    Cid::new_v1(0x55, hash)
}

fn members() -> Vec<Member> {
    let member = |n: usize| Member {
        raft_id: n as u64 + 1,
        peer_id: PeerId::random(),
        name: format!("p{n}"),
        addresses: Vec::new(),
        role: Role::Voter,
        version: String::new(),
        witness: false,
    };
    (0..PEERS).map(member).collect()
}

/// The `n`-th pin: everywhere, or held by two.
fn pin(n: u32, members: &[Member]) -> Pin {
    let mut pin = Pin::new(cid(n), Timestamp::from_secs(i64::from(n)));
    pin.name = format!("n{n}");
    if !n.is_multiple_of(3) {
        (pin.replication_min, pin.replication_max) = (2, 2);
        let holder = n as usize % PEERS;
        pin.allocations = vec![members[holder].peer_id, members[(holder + 1) % PEERS].peer_id];
    }
    pin
}

/// The status of a pin on a peer that holds it.
fn status_of(n: u32, peer: usize) -> Status {
    match (n as usize + peer) % 4 {
        0 => Status::PinError,
        1 => Status::Pinning,
        _ => Status::Pinned,
    }
}

fn row_of(n: u32, status: Status) -> Row {
    let error = if status.is_error() { format!("error of {n}") } else { String::new() };
    Row { key: cid(n).to_bytes(), error, attempts: 1, ..plain_row(status) }
}

/// A state of `pins` pins, and its members.
struct Model {
    members: Vec<Member>,
    pins: Vec<Pin>,
    state: Arc<dyn StateStore>,
}

impl Model {
    fn new(pins: u32) -> Model {
        let members = members();
        let pins: Vec<Pin> = (0..pins).map(|n| pin(n, &members)).collect();
        let state = MemoryState::new();
        let writes = pins.iter().map(|p| (Table::Pins, p.cid.to_bytes(), Some(p.encode()))).collect();
        state.write(WriteBatch { writes, applied: None }).expect("written");
        Model { members, pins, state: Arc::new(state) }
    }

    /// What a peer sends.
    fn rows(&self, peer: usize, filter: StatusFilter) -> Vec<Row> {
        let id = self.members[peer].peer_id;
        let held = (0u32..).zip(&self.pins).filter(|(_, p)| p.is_allocated_to(&id));
        held.map(|(n, _)| row_of(n, status_of(n, peer))).filter(|r| filter.matches(r.status)).collect()
    }

    fn speaking(&self, peer: usize, rows: Vec<Row>) -> Rows {
        let (sender, receiver) = async_channel::unbounded();
        for row in rows {
            sender.try_send(row).expect("sent");
        }
        Rows::new(self.members[peer].clone(), Ok(Source::Recovered(receiver)))
    }

    fn silent(&self, peer: usize) -> Rows {
        Rows::new(self.members[peer].clone(), Err(Error::unavailable("no answer")))
    }

    /// All items of a merge of all peers, some of them as given.
    fn merge(&self, filter: StatusFilter, mut odd: HashMap<usize, Rows>, state: bool) -> Vec<GlobalPinInfo> {
        let peers = (0..PEERS)
            .map(|n| odd.remove(&n).unwrap_or_else(|| self.speaking(n, self.rows(n, filter))))
            .collect();
        let reader = TableReader::new(self.state.clone(), Table::Pins);
        let pins = state.then(|| PinWalk { reader: Some(reader), ahead: VecDeque::new() });
        let merge = Merge {
            state: self.state.clone(),
            readings: Arc::default(),
            filter,
            peers,
            pins,
            complain: false,
        };
        block_on(run(merge).map(|item| item.expect("an item")).collect())
    }

    fn on<'a>(&self, item: &'a GlobalPinInfo, peer: usize) -> Option<&'a PinInfo> {
        item.peer_map.get(&self.members[peer].peer_id.to_string())
    }
}

fn filter(text: &str) -> StatusFilter {
    StatusFilter::parse(text).expect(text)
}

#[test]
fn many_peers_and_pins_come_together_in_order() {
    // More than two pages of pins.
    let model = Model::new(1_200);
    let items = model.merge(StatusFilter::ALL, HashMap::new(), true);
    assert_eq!(items.len(), model.pins.len());
    for (n, (item, pin)) in (0u32..).zip(items.iter().zip(&model.pins)) {
        assert_eq!((&item.cid, &item.name), (&pin.cid.to_string(), &pin.name));
        assert_eq!(item.peer_map.len(), PEERS, "{n}");
        for peer in 0..PEERS {
            let wanted = match pin.is_allocated_to(&model.members[peer].peer_id) {
                true => status_of(n, peer),
                false => Status::Remote,
            };
            let info = model.on(item, peer).expect("a status of each peer");
            assert_eq!(info.status, wanted, "pin {n} on peer {peer}");
            assert_eq!(info.peername, format!("p{peer}"));
            assert_eq!(info.error.is_empty(), !wanted.is_error());
        }
    }
}

#[test]
fn a_filter_shows_what_passes_it_and_nothing_else() {
    let model = Model::new(100);
    for text in ["pinned", "error", "pinning,pin_error", "unpinned"] {
        let filter = filter(text);
        let items = model.merge(filter, HashMap::new(), true);
        let wanted = (0u32..).zip(&model.pins).filter(|(n, pin)| {
            (0..PEERS)
                .any(|p| pin.is_allocated_to(&model.members[p].peer_id) && filter.matches(status_of(*n, p)))
        });
        let wanted: Vec<String> = wanted.map(|(_, p)| p.cid.to_string()).collect();
        assert_eq!(items.iter().map(|i| i.cid.clone()).collect::<Vec<_>>(), wanted, "{text}");
        assert!(items.iter().flat_map(|i| i.peer_map.values()).all(|i| filter.matches(i.status)), "{text}");
    }
    // `remote` is made here: no peer sends it.
    let remote = model.merge(filter("remote"), HashMap::new(), true);
    assert_eq!(remote.len(), model.pins.iter().filter(|p| !p.is_everywhere()).count());
    assert!(remote.iter().all(|i| i.peer_map.len() == PEERS - 2));
}

#[test]
fn a_silent_peer_is_an_error_where_it_holds_something() {
    let model = Model::new(60);
    let silent = || HashMap::from([(2, model.silent(2))]);
    let items = model.merge(StatusFilter::ALL, silent(), true);
    assert_eq!(items.len(), model.pins.len());
    for (item, pin) in items.iter().zip(&model.pins) {
        let info = model.on(item, 2).expect("a status");
        match pin.is_allocated_to(&model.members[2].peer_id) {
            true => assert_eq!((info.status, info.error.as_str()), (Status::ClusterError, "no answer")),
            false => assert_eq!(info.status, Status::Remote),
        }
        assert_eq!(item.peer_map.len(), PEERS);
    }
    // Asked for errors of this kind, there are those and no others.
    let items = model.merge(filter("cluster_error"), silent(), true);
    let held = model.pins.iter().filter(|p| p.is_allocated_to(&model.members[2].peer_id));
    assert_eq!(items.len(), held.count());
    assert!(items.iter().all(|i| i.peer_map.len() == 1 && model.on(i, 2).is_some()));
    // Asked for something else, it comes with what others say, and makes no item of its own.
    for item in model.merge(filter("pinning"), silent(), true) {
        assert!(item.peer_map.values().any(|i| i.status == Status::Pinning), "{item:?}");
    }
    // Without anybody the state is still told.
    let nobody = (0..PEERS).map(|n| (n, model.silent(n))).collect();
    assert_eq!(model.merge(StatusFilter::ALL, nobody, true).len(), model.pins.len());
}

#[test]
fn a_peer_lost_on_the_way_is_an_error_from_there_on() {
    let model = Model::new(90);
    let mut lost = model.rows(1, StatusFilter::ALL);
    lost.truncate(10);
    let last = lost.last().expect("a row").key.clone();
    let rows = Rows {
        member: model.members[1].clone(),
        source: None,
        ahead: lost.into(),
        last: Vec::new(),
        error: Some("the connection was closed".into()),
    };
    let items = model.merge(StatusFilter::ALL, HashMap::from([(1, rows)]), true);
    assert_eq!(items.len(), model.pins.len());
    for ((n, item), pin) in (0u32..).zip(&items).zip(&model.pins) {
        if pin.is_allocated_to(&model.members[1].peer_id) {
            let wanted = if pin.cid.to_bytes() <= last { status_of(n, 1) } else { Status::ClusterError };
            assert_eq!(model.on(item, 1).expect("a status").status, wanted, "{n}");
        }
    }
}

#[test]
fn a_peer_that_sends_nonsense_spoils_nothing_for_the_others() {
    let model = Model::new(30);
    let mut backwards = model.rows(3, StatusFilter::ALL);
    backwards.swap(0, 1);
    let no_cid = vec![Row { key: b"nonsense".to_vec(), ..plain_row(Status::Pinned) }];
    let twice = vec![row_of(0, Status::Pinned), row_of(0, Status::Pinned)];
    for rows in [backwards, no_cid, twice] {
        let odd = HashMap::from([(3, model.speaking(3, rows))]);
        let items = model.merge(StatusFilter::ALL, odd, true);
        assert_eq!(items.len(), model.pins.len());
        let last = model.on(&items[27], 3).expect("a status");
        assert_eq!(last.status, Status::ClusterError);
        assert!(last.error.contains("out of order"), "{}", last.error);
        assert_eq!(model.on(&items[27], 4).expect("a status").status, status_of(27, 4));
    }
}

#[test]
fn a_row_without_a_pin_is_shown() {
    // Unpinning failed there: the state has forgotten the CID, that peer has not.
    let model = Model::new(5);
    let mut rows = model.rows(0, StatusFilter::ALL);
    rows.push(row_of(1_000, Status::UnpinError));
    let items = model.merge(StatusFilter::ALL, HashMap::from([(0, model.speaking(0, rows))]), true);
    assert_eq!(items.len(), 6);
    assert_eq!(items[5].cid, cid(1_000).to_string());
    assert_eq!(items[5].peer_map.len(), 1);
    assert_eq!(model.on(&items[5], 0).expect("a status").status, Status::UnpinError);
}

#[test]
fn recovering_shows_only_what_was_queued_again() {
    let model = Model::new(20);
    let mut odd: HashMap<usize, Rows> = (0..PEERS).map(|n| (n, model.speaking(n, Vec::new()))).collect();
    odd.insert(1, model.speaking(1, vec![row_of(3, Status::PinQueued), row_of(6, Status::PinQueued)]));
    odd.insert(4, model.speaking(4, vec![row_of(6, Status::Pinning)]));
    let items = model.merge(filter("queued,pinning,unpinning"), odd, false);
    let seen: Vec<_> = items.iter().map(|i| (i.name.as_str(), i.peer_map.len())).collect();
    assert_eq!(seen, [("n3", 1), ("n6", 2)]);
}
