//! Raft frames as they come off the wire: read, written and read again; and the small codecs beside them.

use crate::consensus::membership::{decode_change, encode_change};
use crate::consensus::message::{
    decode, decode_conf_state, decode_entry, encode_conf_state, encode_entry, encode_messages, encode_notice,
    is_remote, Body, MAX_FRAME_BYTES,
};
use raft::eraftpb::Message;

/// Any bytes as a frame, an entry, a configuration and a membership change.
pub(super) fn frames(data: &[u8]) {
    if let Ok(frame) = decode(data) {
        assert!(frame.from != 0 && frame.to != 0, "nobody has the Raft id 0");
        let again = match &frame.body {
            Body::Messages(messages) => {
                assert!(messages.iter().all(|m| is_remote(m.get_msg_type())), "not for another process");
                assert!(messages.iter().all(|m| m.from == frame.from && m.to == frame.to));
                encode_messages(frame.cluster_id, frame.from, frame.to, messages)
            }
            notice => vec![encode_notice(frame.cluster_id, frame.from, frame.to, notice)],
        };
        let mut seen: Vec<Message> = Vec::new();
        for bytes in &again {
            assert!(bytes.len() <= MAX_FRAME_BYTES);
            let read = decode(bytes).expect("what was written can be read");
            assert_eq!((read.cluster_id, read.from, read.to), (frame.cluster_id, frame.from, frame.to));
            match read.body {
                Body::Messages(messages) => seen.extend(messages),
                notice => assert_eq!(notice, frame.body),
            }
        }
        if let Body::Messages(messages) = &frame.body {
            // The lists of a configuration come out sorted; everything else as it went in.
            let sorted = |messages: &[Message]| {
                let mut messages = messages.to_vec();
                for conf in messages.iter_mut().filter(|m| m.has_snapshot()) {
                    let conf = conf.mut_snapshot().mut_metadata().mut_conf_state();
                    *conf = decode_conf_state(&encode_conf_state(conf)).expect("read again");
                }
                messages
            };
            assert_eq!(sorted(&seen), sorted(messages));
        }
    }
    if let Ok(entry) = decode_entry(data) {
        assert_eq!(decode_entry(&encode_entry(&entry)).expect("read again"), entry);
    }
    if let Ok(conf) = decode_conf_state(data) {
        let bytes = encode_conf_state(&conf);
        let again = decode_conf_state(&bytes).expect("read again");
        assert_eq!(encode_conf_state(&again), bytes, "equal configurations are equal bytes");
    }
    if let Ok((id, change)) = decode_change(data) {
        assert_eq!(decode_change(&encode_change(id, &change)).expect("read again"), (id, change));
    }
}
