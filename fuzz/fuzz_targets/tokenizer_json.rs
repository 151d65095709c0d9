//! The reader of `tokenizer.json` refuses or accepts, and never panics; what it accepts is written and read back alike.
#![no_main]

use genomill::tokenizer::hf_json;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(tokenizer) = hf_json::read(text) {
        let mut ids = Vec::new();
        tokenizer.encode_with_special_tokens_into(b"ACGTNNRYAAAACGT", &mut ids);
        tokenizer.decode_into(&ids, &mut Vec::new()).expect("own ids");
        let written = tokenizer.to_json();
        assert_eq!(hf_json::read(&written).expect("own file").to_json(), written);
    }
});
