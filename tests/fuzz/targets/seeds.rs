//! What fuzzing begins with: real encodings, and files that real programs wrote. `PINFOLD_FUZZ=seeds` writes them.

use crate::clock::Timestamp;
use crate::consensus::founding::{Answer, Ask, AskKind, Ballot, Record};
use crate::consensus::message::{encode_entry, encode_messages, encode_notice, Body};
use crate::consensus::snapshot::{Chunk, SnapshotRequest};
use crate::ipfs::car;
use crate::ipfs::ipld::{self, Value};
use crate::ipfs::unixfs::hash::{self, DAG_CBOR, DAG_JSON, DAG_PB, RAW};
use crate::ipfs::unixfs::node::{DataType, PbLink, PbNode, UnixFs};
use crate::state::{Applied, Command, Member, Move, Outcome, Pin, PinMode, Role};
use libp2p::PeerId;
use raft::eraftpb::{Entry, Message, MessageType};
use std::path::Path;

/// A peer of all examples.
const PEER: &str = "12D3KooWKWqnCCKgxL8E7T4M1dz6YmkdihGUoo1NDrsZPAGH8AMH";

/// The seeds of a target; none where an empty input is as good as any.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "rpc_frames" => rpc_frames(),
        "cluster_calls" => cluster_calls(),
        "raft_frames" => raft_frames(),
        "founding" => founding(),
        "records" => records(),
        "commands" => records().into_iter().map(|r| [&[1, r.len() as u8], &r[..]].concat()).collect(),
        "snapshot" => snapshot(),
        "log_entries" => vec![vec![1, 0, 1, 2, 3, 1, 2, 3, 0], vec![1, 2, 5, 9, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]],
        "config" => files(&["tests/data/config", "tests/golden/service.json"]),
        "identity" => files(&["tests/golden/identities.json", "tests/data/format1/identity.json"])
            .into_iter()
            .chain([format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", "ab".repeat(32)).into_bytes()])
            .chain([format!("/ip4/127.0.0.1/tcp/9096/p2p/{PEER}\n# no\n/dns4/a/tcp/1\n").into_bytes()])
            .collect(),
        "import" => files(&["tests/golden/state-export.ndjson", "tests/data/format1/export.ndjson"])
            .into_iter()
            .map(|text| text.into_iter().take(4_000).collect())
            .chain(texts(&[
                r#"{"cid":{"/":"QmegC4srqQjb99iuoL7fzcUeXG6TYPeXUsW2WXEbpmVa7o"},"type":2,"max_depth":0}"#,
                r#"{"Version":1,"PinMap":{"QmegC4srqQjb99iuoL7fzcUeXG6TYPeXUsW2WXEbpmVa7o":{"Name":"a","ReplicationFactor":-1}}}"#,
                r#"[{"cid":"QmegC4srqQjb99iuoL7fzcUeXG6TYPeXUsW2WXEbpmVa7o","allocations":null,"expire_at":0}]"#,
            ]))
            .collect(),
        "query" => texts(&[
            "name=a%20b&replication-min=2&replication-max=3&meta-k=v&mode=direct&shard-size=1",
            "expire-in=1h&user-allocations=x,y&pin-update=QmegC4srqQjb99iuoL7fzcUeXG6TYPeXUsW2WXEbpmVa7o",
            "expire-at=2030-01-02T03:04:05Z&origins=/ip4/1.2.3.4/tcp/4001/p2p/12D3KooWKWqnCCKgxL8E7T4M1dz6YmkdihGUoo1NDrsZPAGH8AMH",
            "local=true&consistency=strong&filter=pinned,error&cids=a,b&format=car&chunker=size-1024&cid-version=1&hash=sha2-256",
        ]),
        "names" => [
            "\0QmegC4srqQjb99iuoL7fzcUeXG6TYPeXUsW2WXEbpmVa7o",
            "\0bafkreib7zef5jwctsiyrt7q6m6iwurbl7pygrnz55nwo5vjkgs4bosvmdy",
            "\x0112D3KooWKWqnCCKgxL8E7T4M1dz6YmkdihGUoo1NDrsZPAGH8AMH",
            "\x02/ip4/127.0.0.1/tcp/9096/p2p/12D3KooWKWqnCCKgxL8E7T4M1dz6YmkdihGUoo1NDrsZPAGH8AMH",
            "\x02/dns4/example.org/tcp/443/tls/ws",
            "\x02/unix/%2Frun%2Fpinfold",
            "\x031h2m3.5s",
            "\x03100us",
            "\x042026-11-21T03:02:04.884280450Z",
            "\x042026-11-21T03:02:04-23:59",
            "\x05/ipfs/QmegC4srqQjb99iuoL7fzcUeXG6TYPeXUsW2WXEbpmVa7o/a/b",
            "\x06a%20b+c",
            "\x07multipart/form-data; boundary=\"b\"; x=y",
        ]
        .iter()
        .map(|text| text.as_bytes().to_vec())
        .collect(),
        "multipart" => multipart(),
        "tokens" => vec![
            b"\0eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJhbm4ifQ.C6SFetxgiP1n7xP3Z4a-b3Vu4yiqA7LcPT9PClWTkGo".to_vec(),
            [&[1, 1, 27], &br#"{"alg":"HS256","typ":"JWT"}{"iss":"ann","exp":99999999999}"#[..]].concat(),
            vec![2, 0, 7, b'x'],
            b"\x03pinfold1:AQAH".to_vec(),
            [&[4, 1], &[7; 32][..], &[5, 4, b'h', b'o', b'm', b'e', 1], &address()].concat(),
        ],
        "arguments" => (0..40u8).map(|n| vec![n % 3, 0, 0, 2, n * 6, 0, 0, 1, b'x', 2, n, 1]).collect(),
        "node_calls" => texts(&[
            "\0cat/QmegC4srqQjb99iuoL7fzcUeXG6TYPeXUsW2WXEbpmVa7o/a?offset=1&length=2",
            "\0block/stat?arg=bafkreib7zef5jwctsiyrt7q6m6iwurbl7pygrnz55nwo5vjkgs4bosvmdy&encoding=text&timeout=1s",
            "\x01add?cid-version=1&raw-leaves=true&chunker=size-1024&cid-base=base32",
            "\0/ipfs/QmegC4srqQjb99iuoL7fzcUeXG6TYPeXUsW2WXEbpmVa7o/../a/./b",
            "\0ls?arg=/ipfs/QmegC4srqQjb99iuoL7fzcUeXG6TYPeXUsW2WXEbpmVa7o&stream=true&size=false",
            "\0swarm/connect?arg=/ip4/127.0.0.1/tcp/1",
        ]),
        "car" => cars(),
        "unixfs" => unixfs(),
        "ipld" => ipld_blocks(),
        "bitswap" => bitswap(),
        "tar" => vec![
            vec![1, 2, 1, 0, 0, 1, 0, 0, 2, 1, 2, b'h', b'i', 1, 2, 2, 0, 0],
            vec![1, 3, 4, 5, 3, b'r', b'o', b'o', 0, 3, b'a', b'b', b'c', 1, 0, 1, 3, 0, 0, 1],
        ],
        "kubo" => texts(&[
            "\x00\x03{\"ID\":\"12D3KooWKWqnCCKgxL8E7T4M1dz6YmkdihGUoo1NDrsZPAGH8AMH\",\"Addresses\":[\"/ip4/1.2.3.4/tcp/1\"],\"AgentVersion\":\"kubo\"}",
            "\x01\x03{\"Progress\":1}\n{\"Pins\":[\"bafkreihnoabliopjvscf6irvpwbcxlauirzq7pnwafwt5skdekl3t3e7om\"]}\n",
            "\x04\x01{\"Cid\":\"bafkreib7zef5jwctsiyrt7q6m6iwurbl7pygrnz55nwo5vjkgs4bosvmdy\",\"Type\":\"recursive\"}\n",
            "\x05\x03{\"RepoSize\":1,\"StorageMax\":2}",
            "\x06\x03{\"Key\":{\"/\":\"bafkreib7zef5jwctsiyrt7q6m6iwurbl7pygrnz55nwo5vjkgs4bosvmdy\"}}\n{\"Error\":\"x\"}\n",
            "\x02\x02{\"Message\":\"not pinned or pinned indirectly\",\"Code\":0,\"Type\":\"error\"}",
            "\x01\x00HTTP/1.1 200 OK\r\nTrailer: X-Stream-Error\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n0\r\nX-Stream-Error: bad\r\n\r\n",
            "\x09\x03content",
            "\x07\x03{\"Peers\":[{\"Peer\":\"12D3KooWKWqnCCKgxL8E7T4M1dz6YmkdihGUoo1NDrsZPAGH8AMH\"}]}",
        ]),
        "segments" => (0..12u8)
            .map(|n| vec![n % 5, 3, b'a', b'b', b'c', 2, n, n, n & 1, 1 + n, n % 4, n * 20, 0, n, n, 0, 1, n & 1, n * 17, 0])
            .collect(),
        "raft_driver" => (0..48u8)
            .map(|n| {
                let step = |kind: u8| vec![n % 3, (n + 1) % 3, kind, n.wrapping_mul(37), n, kind, n / 3, 4 * n];
                [vec![n], step(0), step(1), step(5), step(6), step(7), step(3), step(0)].concat()
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Files of the repository, or all files of its folders.
fn files(names: &[&str]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for name in names {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        match std::fs::read_dir(&path) {
            Ok(entries) => {
                let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
                files.sort();
                out.extend(files.into_iter().filter_map(|file| std::fs::read(file).ok()));
            }
            Err(_) => out.extend(std::fs::read(path).ok()),
        }
    }
    out
}

fn address() -> Vec<u8> {
    let address: libp2p::Multiaddr =
        format!("/ip4/192.168.1.2/tcp/9096/p2p/{PEER}").parse().expect("an address");
    let bytes = address.to_vec();
    [&[bytes.len() as u8], &bytes[..]].concat()
}

fn rpc_frames() -> Vec<Vec<u8>> {
    let frame = |kind: u8, body: &[u8]| [&(body.len() as u32).to_be_bytes()[..], &[kind], body].concat();
    let method = |name: &str| [&[name.len() as u8], name.as_bytes()].concat();
    vec![
        [&[3], &method("cluster.id")[..], &frame(1, b"")].concat(),
        [&[4], &method("raft")[..], &frame(0, &[7; 40]), &frame(0, b""), &frame(1, b"")].concat(),
        [&[5], &method("cluster.gc")[..], &frame(2, &[3, 2, b'n', b'o'])].concat(),
        [&[6], &method("cluster.blocks")[..], &frame(0, &[1; 300]), &[0, 63, 255, 255, 0]].concat(),
    ]
}

fn cluster_calls() -> Vec<Vec<u8>> {
    let with = |kind: u8, body: Vec<u8>| [&[kind], &body[..]].concat();
    let to = |value: &crate::cluster::JoinRequest| postcard::to_stdvec(value).expect("a message");
    let reading = crate::monitor::Reading {
        name: "ping".into(),
        value: "{}".into(),
        weight: 1,
        partitionable: false,
        ttl_ms: 30_000,
    };
    vec![
        with(
            0,
            to(&crate::cluster::JoinRequest {
                raft_id: 7,
                name: "a".into(),
                addresses: vec!["/ip4/127.0.0.1/tcp/1".into()],
                version: "0.2.0".into(),
            }),
        ),
        with(1, {
            let reply = crate::cluster::JoinReply { cluster_id: 5, members: vec![member().encode()] };
            postcard::to_stdvec(&reply).expect("a message")
        }),
        with(2, postcard::to_stdvec(&vec![reading]).expect("a message")),
        with(4, vec![3]),
        with(5, vec![1, 0xc1, 1, 9, 3, 1, 2, 3]),
        with(6, {
            let record = member().encode();
            [&[0xc1, 1, 0, record.len() as u8], &record[..]].concat()
        }),
        with(7, vec![1, 0, 5, 2, 1, 0]),
        with(8, {
            let request = SnapshotRequest { cluster_id: 1, raft_id: 2, at_least: 3 };
            postcard::to_stdvec(&request).expect("a message")
        }),
    ]
}

fn peer() -> PeerId {
    PEER.parse().expect("a peer id")
}

fn member() -> Member {
    Member {
        raft_id: 7,
        peer_id: peer(),
        name: "board".into(),
        addresses: vec!["/ip4/192.168.1.2/tcp/9096".parse().expect("an address")],
        role: Role::Voter,
        version: "0.2.0".into(),
        witness: false,
    }
}

fn pin() -> Pin {
    let cid = "bafkreib7zef5jwctsiyrt7q6m6iwurbl7pygrnz55nwo5vjkgs4bosvmdy".parse().expect("a CID");
    let mut pin = Pin::new(cid, Timestamp::from_secs(1_700_000_000));
    pin.name = "holiday".into();
    pin.mode = PinMode::Direct;
    (pin.replication_min, pin.replication_max) = (1, 2);
    pin.allocations = vec![peer()];
    pin.metadata.insert("k".into(), "v".into());
    pin.expire_at = Timestamp::from_secs(1_800_000_000);
    pin.origins = vec!["/ip4/1.2.3.4/tcp/4001".parse().expect("an address")];
    pin.pin_update = Some(cid);
    pin
}

fn records() -> Vec<Vec<u8>> {
    let plain = Member { version: String::new(), ..member() };
    let moved = Move { cid: pin().cid, from: vec![peer()], to: vec![peer()] };
    vec![
        pin().encode(),
        member().encode(),
        Member { witness: true, ..member() }.encode(),
        plain.encode(),
        Command::Pin(Box::new(pin())).encode(),
        Command::PinMany(vec![pin(), Pin::new(pin().cid, Timestamp::ZERO)]).encode(),
        Command::Unpin(pin().cid).encode(),
        Command::Expire(pin().cid, pin().expire_at).encode(),
        Command::UpdateMember(plain).encode(),
        Command::UpdateMember(member()).encode(),
        Command::RaiseVersion(2).encode(),
        Command::Reallocate(vec![moved]).encode(),
        Outcome::Done.encode(),
        Outcome::Pin(Box::new(pin())).encode(),
        Outcome::Moved(3).encode(),
    ]
}

fn raft_frames() -> Vec<Vec<u8>> {
    let of = |kind: MessageType| {
        let mut message = Message::default();
        message.set_msg_type(kind);
        (message.term, message.log_term, message.index, message.commit) = (4, 3, 9, 8);
        message
    };
    let entry = |index| Entry {
        index,
        term: 3,
        data: Command::Unpin(pin().cid).encode().into(),
        context: vec![0; 8].into(),
        ..Entry::default()
    };
    let mut append = of(MessageType::MsgAppend);
    append.set_entries(vec![entry(10), entry(11)].into());
    let mut snapshot = of(MessageType::MsgSnapshot);
    let meta = snapshot.mut_snapshot().mut_metadata();
    (meta.index, meta.term) = (77, 5);
    meta.mut_conf_state().voters = vec![1, 2, 3];
    let mut read = of(MessageType::MsgReadIndex);
    read.set_entries(vec![Entry { data: vec![1; 8].into(), ..Entry::default() }].into());
    let change = crate::consensus::membership::encode_change(1, &crate::state::MemberChange::Put(member()));
    let all = [append, snapshot, read, of(MessageType::MsgHeartbeat), of(MessageType::MsgRequestPreVote)];
    let mut out = encode_messages(7, 1, 2, &all);
    out.extend(all.iter().flat_map(|message| encode_messages(7, 1, 2, std::slice::from_ref(message))));
    out.extend([encode_notice(7, 1, 2, &Body::Removed), encode_notice(7, 1, 2, &Body::AmIRemoved)]);
    out.extend([encode_entry(&entry(5)), change]);
    out
}

fn founding() -> Vec<Vec<u8>> {
    let record = Record::new(1, vec!["a".into(), "b".into()]);
    let ballot = Ballot { round: 3, peer: PEER.into() };
    let ask = Ask { list: vec![PEER.into()], raft_id: 1, kind: AskKind::Prepare(ballot.clone()) };
    let mut out = vec![
        serde_json::to_vec(&record).expect("JSON"),
        postcard::to_stdvec(&ask).expect("a message"),
        postcard::to_stdvec(&Answer::Accepted(ballot)).expect("a message"),
    ];
    // Time, greetings, promises, acceptances: the way of an ordinary founding.
    out.push(
        [0, 0, 255].iter().chain([1, 2, 0, 1, 1, 0, 0, 0, 255].iter().cycle().take(180)).copied().collect(),
    );
    out
}

fn snapshot() -> Vec<Vec<u8>> {
    let chunk = |chunk: &Chunk| {
        let bytes = postcard::to_stdvec(chunk).expect("a chunk");
        [&[0, bytes.len() as u8], &bytes[..]].concat()
    };
    let conf_state = vec![1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    let header = Chunk::Header { applied: Applied { index: 9, term: 2 }, conf_state };
    let rows = Chunk::Rows(vec![(0, pin().cid.to_bytes(), pin().encode())]);
    vec![
        [&[0][..], &chunk(&header), &chunk(&rows), &chunk(&Chunk::End { rows: 1 })].concat(),
        [&[1][..], &chunk(&header), &chunk(&Chunk::End { rows: 0 })].concat(),
        vec![0, 1, 9, 2, 0, 2, 3, 0, 1, 2, 3, 4, 5, 6, 3, 3],
    ]
}

fn multipart() -> Vec<Vec<u8>> {
    let part = |disposition: &str, kind: &str, content: &str| {
        format!("--b\r\nContent-Disposition: form-data; name=\"file\"; {disposition}\r\nContent-Type: {kind}\r\n\r\n{content}\r\n")
    };
    let whole = [
        part("filename=\"d\"", "application/x-directory", ""),
        part("filename=\"d%2Fa+b.txt\"", "application/octet-stream", "one\r\n--x\r\n-"),
        part("filename=\"d%2Flink\"", "application/symlink", "a b.txt"),
        "--b--\r\nepilogue".to_owned(),
    ]
    .concat();
    let escaping = part("filename=\"..%2Fa\"", "application/octet-stream", "x") + "--b--";
    vec![
        [&[7], whole.as_bytes()].concat(),
        [&[8], escaping.as_bytes()].concat(),
        [&[9], &whole.as_bytes()[..60]].concat(),
    ]
}

fn cars() -> Vec<Vec<u8>> {
    let block = b"block body\n";
    let cid = hash::cid_of(1, RAW, block);
    let mut v1 = car::header(&[cid]);
    v1.extend(car::section_head(&cid, block.len()));
    v1.extend_from_slice(block);
    let mut v2 = vec![3, 0, 0x0a, 0xa1, 0x67];
    v2.extend_from_slice(b"version\x02");
    v2.extend([0; 16]);
    for number in [51, v1.len() as u64, 0] {
        v2.extend(number.to_le_bytes());
    }
    v2.extend_from_slice(&v1);
    vec![[&[5, 0], &v1[..]].concat(), v2, vec![1, 1, 3, 2, b'a', b'b', 1, b'c', 4, 1, 1, 1, 1, 0, 0, 0]]
}

fn unixfs() -> Vec<Vec<u8>> {
    let leaf = hash::cid_of(1, RAW, b"leaf");
    let mut file = UnixFs::new(DataType::File);
    (file.file_size, file.block_sizes) = (Some(8), vec![4, 4]);
    let link = PbLink { cid: leaf, name: "a".into(), size: 4 };
    let node = PbNode { links: vec![link.clone(), link], data: Some(file.encode().into()) };
    let mut shard = UnixFs::new(DataType::Shard);
    (shard.data, shard.hash_type, shard.fanout) = (Some(vec![1; 32].into()), Some(0x22), Some(256));
    vec![
        node.encode(),
        file.encode(),
        shard.encode(),
        // Two leaves, a file of them, a folder with it.
        vec![
            0, b'a', 0, 0, 4, b'l', b'e', b'a', b'f', 3, 0, 2, 0, b'x', b'y', 4, 4, 0, b'z', b'z', 4, 4, 0,
            1, 3, 1, 1, 1, b'a', 0, 9, 9, 16, 0,
        ],
        vec![
            1, 3, 5, b'a', 0, 0, 3, 1, 2, 3, 3, 2, 1, 0, 7, b'a', 0, 9, 4, 0, 1, 3, 1, 2, 1, b'a', b'b', 9,
            9, 0, 1,
        ],
    ]
}

fn ipld_blocks() -> Vec<Vec<u8>> {
    let link = hash::cid_of(1, RAW, b"leaf");
    let value = Value::Map(vec![
        ("a".into(), Value::List(vec![Value::Int(-1), Value::Float(1.5), Value::Null, Value::Bool(true)])),
        ("b".into(), Value::Bytes(vec![1, 2, 3].into())),
        ("l".into(), Value::Link(link)),
        ("t".into(), Value::Text("é\"\n".into())),
    ]);
    let node = PbNode { links: vec![PbLink { cid: link, name: "n".into(), size: 1 }], data: None };
    let with = |which: u8, bytes: Vec<u8>| [&[which], &bytes[..]].concat();
    vec![
        with(0, ipld::encode(DAG_CBOR, &value).expect("cbor")),
        with(1, ipld::encode(DAG_JSON, &value).expect("json")),
        with(2, node.encode()),
        with(2, ipld::decode(DAG_PB, &node.encode().into()).map_or(Vec::new(), |_| vec![10, 1, 1])),
        with(0, vec![0xd8, 0x2a, 0x43, 0, 1, 2]),
        with(1, br#"{"/":{"bytes":"AQID"}}"#.to_vec()),
    ]
}

fn bitswap() -> Vec<Vec<u8>> {
    use crate::ipfs::embedded::bitswap::wire::{Encoder, Entry as Want, WantKind};
    let cid = hash::cid_of(1, RAW, b"leaf");
    let want = |kind, cancel| Want { cid, priority: 7, kind, cancel, send_dont_have: true };
    let mut out = Encoder::new();
    out.wantlist(&[want(WantKind::Have, false), want(WantKind::Block, true)], true);
    out.block(&cid, b"leaf");
    out.presence(&cid, false);
    let whole = out.finish();
    vec![[&[1], &whole[..], &whole[..]].concat(), [&[0], &whole[2..]].concat(), vec![1, 0xff, 0xff, 0x7f]]
}
