//! Against what Kubo 0.42 makes of the same input (CIDs recorded from it), and against noise.

use super::*;
use crate::ipfs::unixfs::hash::cid_of;

fn put_json(text: &str) -> Result<String> {
    let value = decode(DAG_JSON, &Bytes::copy_from_slice(text.as_bytes()))?;
    Ok(cid_of(1, DAG_CBOR, &encode(DAG_CBOR, &value)?).to_string())
}

fn back(text: &str) -> String {
    let value = decode(DAG_JSON, &Bytes::copy_from_slice(text.as_bytes())).expect(text);
    let cbor = encode(DAG_CBOR, &value).expect(text);
    let again = decode(DAG_CBOR, &cbor.into()).expect(text);
    String::from_utf8(encode(DAG_JSON, &again).expect(text)).expect("UTF-8")
}

#[test]
fn json_becomes_the_cbor_that_kubo_makes() {
    for (text, cid) in [
        ("{\"a\":1}", "bafyreihltcnuuyqp2jm24aqydpnlj7b6w3ogwrplomrjtg5rifv44mmjey"),
        (" {\"a\" : 1}\n", "bafyreihltcnuuyqp2jm24aqydpnlj7b6w3ogwrplomrjtg5rifv44mmjey"),
        ("1e3", "bafyreibnb4bkwsci3tyc37765uf6mdntzepuukrg54dvi7iw75mqhfjbku"),
        ("1000.0", "bafyreibnb4bkwsci3tyc37765uf6mdntzepuukrg54dvi7iw75mqhfjbku"),
        ("1.5e300", "bafyreibaxl4fkwhnassvfbpso7myyebti24qulygfr4uxarjduqueqeiiy"),
        ("0.1", "bafyreiekjuadg7xvivtpacjovcmtblpsruh5d22mb5ixskg4f6xhdz2whe"),
        ("-0.0", "bafyreigbxb7rxqemn5ot7ysj7e7ce2kcjcpn4bw6dnmov56zt6bappyzoq"),
        ("-1", "bafyreibwvht7dsk3ql73tf2d4dc4jtuv3a6juqykvrm7qtxtzp5lmfcqna"),
        ("9223372036854775807", "bafyreih2npqkh2altk6fydcmxj4kibc6qj5p44r7jnktdw22txixdi2qli"),
        ("{\"/\":{\"bytes\":\"AAA=\"}}", "bafyreifpj7ucqpfzpox4dkyymd7zelw4bzfp6q4izlpldb43iorcigt2ma"),
        ("{\"/\":1}", "bafyreih37ngqqfndeo636vkovgabp56hdajlogiu2austimdx4nncdohni"),
        ("{\"/\":\"x\",\"y\":1}", "bafyreihilqqdrucr5lempud2ygqbpghuayeua45ntv3mtwb4ygsa2ujtzq"),
        ("{\"a\":{\"/\":{\"bytes\":1}}}", "bafyreiemb3mb2bbnktf5hdnj4g6ykrbmhpwixikhdclkpfokpcitx3dqrm"),
        (
            "{\"/\":\"QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o\"}",
            "bafyreiho6obbks2izqotg75gvm4zwahbww3evioolfgxo7np3oyfv6atee",
        ),
        ("\"\\ud800\"", "bafyreifdqok74lgragssqds33li6gwz6awdngpissatnlvgs2p52wvypgi"),
        ("\"\\b\\f\\r\\u001f<>&\\u2029\"", "bafyreidujd5gijfcb2fmkvk4m2q27re3nm2itfeb3uopdk4vkhoc72gs4i"),
    ] {
        assert_eq!(put_json(text).expect(text), cid, "{text}");
    }
}

#[test]
fn json_comes_back_as_kubo_writes_it() {
    for (text, want) in [
        ("1e21", "1e+21"),
        ("1e-7", "1e-7"),
        ("0.1", "0.1"),
        ("-0.0", "-0"),
        ("1000.0", "1000"),
        ("123456789012345678.0", "123456789012345680"),
        ("1.5e300", "1.5e+300"),
        ("{\"b\":[],\"a\":{},\"aa\":null}", "{\"a\":{},\"aa\":null,\"b\":[]}"),
        ("\"a\\n\\t\\u0001\\u007f\\u2028\\\\/\\\"\"", "\"a\\n\\t\\u0001\u{7f}\\u2028\\\\/\\\"\""),
        ("\"\\b\\f\\r\\u001f<>&\\u2029\"", "\"\\u0008\\u000c\\r\\u001f<>&\\u2029\""),
        ("\"\\ud83d\\ude00\"", "\"\u{1f600}\""),
        ("{\"/\":{\"bytes\":\"\"}}", "{\"/\":{\"bytes\":\"\"}}"),
    ] {
        assert_eq!(back(text), want, "{text}");
    }
}

#[test]
fn wrong_json_is_refused_in_kubo_s_words() {
    for (text, message) in [
        ("", "unexpected EOF"),
        ("nul", "unexpected EOF"),
        ("{\"a\":1", "unexpected EOF"),
        ("[1,2] trailing", "unexpected content after end of json object"),
        ("{\"a\":1,\"a\":2}", "cannot repeat map key \"a\""),
        ("18446744073709551615", "strconv.ParseInt: parsing \"18446744073709551615\": value out of range"),
        ("-9223372036854775809", "strconv.ParseInt: parsing \"-9223372036854775809\": value out of range"),
        ("1e400", "strconv.ParseFloat: parsing \"1e400\": value out of range"),
        ("{\"/\":\"nosuch\"}", "invalid cid: selected encoding not supported"),
        ("{\"/\":{\"bytes\":\"!!\"}}", "illegal base64 data at input byte 0"),
    ] {
        assert_eq!(put_json(text).expect_err(text).message(), message);
    }
    for text in ["{bad", "[1 2]", "{\"a\" 1}", "01x", "1.", ".5", "+1", "--1", "\"\\x\"", "\"\u{1}\"", "tru3"]
    {
        put_json(text).expect_err(text);
    }
    for text in ["[01]", "-01", "00.5", "-00e3", "01e1"] {
        put_json(text).expect_err(text);
    }
}

#[test]
fn minus_zero_is_written_as_kubo_writes_it_and_read_as_zero() {
    for text in ["-0.0", "-0e0", "-0E00000033"] {
        let value = decode(DAG_JSON, &Bytes::copy_from_slice(text.as_bytes())).expect(text);
        let block = Bytes::from(encode(DAG_JSON, &value).expect(text));
        assert_eq!(
            cid_of(1, DAG_JSON, &block).to_string(),
            "baguqeera5v47e3id6qjl3y63ebtadjuy4c5ukg7kty6meuujmnvmc7vhjmfa",
            "{text}"
        );
        assert_eq!(decode(DAG_JSON, &block).expect(text), Value::Int(0), "{text}");
    }
    assert_eq!(back("-0"), "0");
}

#[test]
fn tolerated_cbor_becomes_canonical() {
    let decode = |bytes: &[u8]| decode(DAG_CBOR, &Bytes::copy_from_slice(bytes));
    let one = Value::Map(vec![("a".into(), Value::Int(1))]);
    for bytes in [&b"\xa1aa\x01"[..], b"\xa1aa\x18\x01", b"\xbfaa\x01\xff", b"\xa1\x7faa\xff\x01"] {
        assert_eq!(decode(bytes).expect("tolerated"), one, "{bytes:x?}");
    }
    assert_eq!(decode(b"\xf9\x3c\x00").expect("half"), Value::Float(1.0));
    assert_eq!(decode(b"\xfa\x3f\x80\x00\x00").expect("single"), Value::Float(1.0));
    assert_eq!(
        decode(b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff").expect("u64"),
        Value::Int(i128::from(u64::MAX))
    );
    assert_eq!(decode(b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff").expect("least"), Value::Int(-(1 << 64)));
    for bytes in [
        &b""[..],
        b"\xa1",
        b"\xf6\xf6",
        b"\xa2aa\x01aa\x02",
        b"\xc0aa",
        b"\xf9\x7c\x00",
        b"\xa1\x01\x01",
        b"\x5f\x61a\xff",
    ] {
        decode(bytes).expect_err("refused");
    }
    decode(&vec![0x81; 100_000]).expect_err("too deep");
    decode(&[vec![0x9a, 0, 8, 0, 0], vec![0x80; 1 << 19]].concat()).expect_err("too many values");
    decode(&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).expect_err("a lying length");
}

#[test]
fn dag_pb_comes_back_byte_for_byte() {
    let folder = "QmYw4XzAQxGkjhXwcbPdFrf2Toip4uioyuJstfzEPayf9w";
    let text = format!(
        "{{\"Data\":{{\"/\":{{\"bytes\":\"CAE\"}}}},\"Links\":[{{\"Hash\":{{\"/\":\"{folder}\"}},\"Name\":\"k.txt\",\"Tsize\":19}}]}}"
    );
    let value = decode(DAG_JSON, &text.clone().into()).expect("JSON");
    let block = Bytes::from(encode(DAG_PB, &value).expect("dag-pb"));
    assert_eq!(cid_of(0, DAG_PB, &block).to_string(), "QmVAMYJCDTPrG4xMSS1mNmDdexQKnD2CD6jLWUMbyCbZLV");
    let again = decode(DAG_PB, &block).expect("node");
    assert_eq!(String::from_utf8(encode(DAG_JSON, &again).expect("JSON")).expect("UTF-8"), text);
    // Absent name and size stay absent.
    let bare = format!("{{\"Links\":[{{\"Hash\":{{\"/\":\"{folder}\"}}}}]}}");
    let block = Bytes::from(encode(DAG_PB, &decode(DAG_JSON, &bare.into()).expect("JSON")).expect("dag-pb"));
    let again = decode(DAG_PB, &block).expect("node");
    assert_eq!(encode(DAG_PB, &again).expect("dag-pb"), block);
    for (text, message) in [
        ("{\"a\":1}", "invalid key for map dagpb.PBNode: \"a\": no such field"),
        ("{\"Data\":null}", "missing required fields: Links"),
        ("{\"Links\":[{\"Name\":\"b\"}]}", "missing required fields: Hash"),
        (
            "{\"Links\":[],\"Data\":1}",
            "func called on wrong kind: \"AsBytes\" called on a int node (kind: int), but only makes sense on bytes",
        ),
    ] {
        let value = decode(DAG_JSON, &Bytes::copy_from_slice(text.as_bytes())).expect(text);
        assert_eq!(encode(DAG_PB, &value).expect_err(text).message(), message);
    }
}

#[test]
fn a_path_leads_into_values() {
    let value = decode(DAG_JSON, &Bytes::from_static(b"{\"a\":[1,{\"b\":null}]}")).expect("JSON");
    let list = value.lookup("a").expect("a");
    assert_eq!(list.lookup("01").expect("a number is a number").lookup("b"), Ok(&Value::Null));
    assert_eq!(list.lookup("9").expect_err("end").message(), "key not found: \"9\"");
    assert!(list.lookup("x").expect_err("no number").message().contains("strconv.ParseInt"));
    let scalar = list.lookup("0").expect("1");
    assert!(scalar
        .lookup("x")
        .expect_err("scalar")
        .message()
        .contains("\"LookupBySegment\" called on a int node"));
}

#[test]
fn no_noise_makes_a_decoder_panic_and_what_is_read_can_be_written() {
    let mut seed = 11_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    let json = b"{\"a\":[1,-2.5e3,\"x\\u00e9\\n\",{\"/\":{\"bytes\":\"AAEC\"}},true,null],\"Links\":[]}";
    let value = decode(DAG_JSON, &Bytes::from_static(json)).expect("JSON");
    let cbor = encode(DAG_CBOR, &value).expect("cbor");
    let goods = [
        (DAG_JSON, json.to_vec()),
        (DAG_CBOR, cbor),
        (DAG_PB, vec![0x12, 6, 0x12, 0, 0x18, 1, 0x0a, 0, 0x0a, 0]),
    ];
    for _ in 0..60_000 {
        let (codec, good) = &goods[random() % goods.len()];
        let mut bytes = good.clone();
        for _ in 0..=random() % 5 {
            let at = random() % bytes.len();
            bytes[at] = random() as u8;
        }
        bytes.truncate(1 + random() % bytes.len());
        if let Ok(value) = decode(*codec, &bytes.into()) {
            let written = Bytes::from(encode(*codec, &value).expect("what was read can be written"));
            let again = decode(*codec, &written).expect("and read again");
            assert_eq!(encode(*codec, &again).expect("canonical"), written);
        }
    }
}
