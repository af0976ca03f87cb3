//! Bambu Lab's certificate authorities: name, key and dates of each.
//!
//! The table has the roots of all models, and the device authorities of P2S, X2D and H2C, which the printers do not
//! always send ([`protocol`](crate::protocol#certificates)).
//!
//! To compare one with a certificate, compute the SHA-256 of the certificate's key; it stands in the comment
//! above each authority:
//!
//! ```text
//! openssl x509 -in ca.pem -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum
//! ```

use alloc::borrow::Cow;

use x509_parser::certificate::X509Certificate;

use super::certificate::Facts;

/// A certificate authority whose signature on a printer's certificate is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// The name as DER, equal to the issuer field of the certificates that it signs.
    pub name: Cow<'static, [u8]>,
    /// The SubjectPublicKeyInfo as DER.
    pub key: Cow<'static, [u8]>,
    /// The subject key identifier, if any (RFC 5280 §4.2.1.2).
    pub key_id: Option<Cow<'static, [u8]>>,
    /// Intermediate authorities that are allowed below this one; `None` is any number (RFC 5280 §4.2.1.9).
    pub path_len: Option<u32>,
    /// Start of the validity, in seconds since 1970.
    pub not_before: i64,
    /// End of the validity, in seconds since 1970.
    ///
    /// Not enforced, as for any trust anchor (RFC 5280 §6.1.1): "BBL CA" ends in 2032, and printers whose
    /// certificates it signed are valid for longer.
    pub not_after: i64,
}

impl Authority {
    /// The authority that a certificate is for; `None` unless the certificate may sign others or is a self-signed
    /// v1 certificate, which cannot state whether it may.
    pub fn of(certificate: &X509Certificate<'_>) -> Option<Self> {
        let facts = Facts::of(certificate).ok()?;
        let is_root = !facts.is_v3 && certificate.subject() == certificate.issuer();
        if !((facts.is_authority && facts.may_sign) || is_root) {
            return None;
        }
        Some(Self {
            name: Cow::Owned(certificate.subject().as_raw().into()),
            key: Cow::Owned(certificate.public_key().raw.into()),
            key_id: facts.key_id.map(|id| Cow::Owned(id.into())),
            path_len: facts.path_len,
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
        })
    }
}

/// Bambu Lab's authorities.
pub static BAMBU_LAB: [Authority; 6] = [
    Authority {
        name: Cow::Borrowed(&BBL_CA_NAME),
        key: Cow::Borrowed(&BBL_CA_KEY),
        key_id: Some(Cow::Borrowed(&BBL_CA_ID)),
        path_len: None,
        not_before: 1_649_043_731,
        not_after: 1_964_403_731,
    },
    Authority {
        name: Cow::Borrowed(&BBL_CA2_RSA_NAME),
        key: Cow::Borrowed(&BBL_CA2_RSA_KEY),
        key_id: Some(Cow::Borrowed(&BBL_CA2_RSA_ID)),
        path_len: None,
        not_before: 1_750_124_288,
        not_after: 2_539_042_688,
    },
    Authority {
        name: Cow::Borrowed(&BBL_CA2_ECC_NAME),
        key: Cow::Borrowed(&BBL_CA2_ECC_KEY),
        key_id: Some(Cow::Borrowed(&BBL_CA2_ECC_ID)),
        path_len: None,
        not_before: 1_750_124_315,
        not_after: 2_539_042_715,
    },
    Authority {
        name: Cow::Borrowed(&DEVICE_O1C2_NAME),
        key: Cow::Borrowed(&DEVICE_O1C2_KEY),
        key_id: Some(Cow::Borrowed(&DEVICE_O1C2_ID)),
        path_len: Some(0),
        not_before: 1_752_559_809,
        not_after: 2_225_945_409,
    },
    Authority {
        name: Cow::Borrowed(&DEVICE_N7_NAME),
        key: Cow::Borrowed(&DEVICE_N7_KEY),
        key_id: Some(Cow::Borrowed(&DEVICE_N7_ID)),
        path_len: Some(0),
        not_before: 1_750_926_654,
        not_after: 2_224_312_254,
    },
    Authority {
        name: Cow::Borrowed(&DEVICE_N6_NAME),
        key: Cow::Borrowed(&DEVICE_N6_KEY),
        key_id: Some(Cow::Borrowed(&DEVICE_N6_ID)),
        path_len: Some(0),
        not_before: 1_750_926_549,
        not_after: 2_224_312_149,
    },
];

// BBL CA, 2022: the root of the X1, P1 and A1
// f0a5b73b682dbcfa12ba76cd1bbbf69c0739bd38000a77d24eb292f58d816785
static BBL_CA_NAME: [u8; 68] =
    hex("3042310b300906035504061302434e31223020060355040a0c1942424c20546563686e6f6c6f676965732043\
     6f2e2c204c7464310f300d06035504030c0642424c204341");
static BBL_CA_KEY: [u8; 294] =
    hex("30820122300d06092a864886f70d01010105000382010f003082010a0282010100cbde99c377118e93967abe\
     e8224f87693348eefb75dab71cf4f5463b99b8f8b6421d6f2e07a1e11d8984998dce4b267809b821f0b446c1\
     26dd41ae245d495ac5e8cf43d946810f26a6128d1dc7049a5716620d558279e08f7442e9159744852353693e\
     0eef382f72716c7c731aff4bcc024bc4ee2d2aa779a313360b7f3eb46b1703a092e4a7b9fac4a5c8f9c25b03\
     82254e8163a5295d3e60beca73a8ed800eb17b7b018298e86973d01c14573489c54fbff95172fd0ae6606370\
     96b42d7511077918b448d2b7db1d7e6ce9dd7c93f4b288ee22b0e32ac7422f27b9092648bea9dba30c16d634\
     706604c1476f59a769f30a8c4961c53d4d2429ff8299b963550203010001");
static BBL_CA_ID: [u8; 20] = hex("8f344268dc674e8fc4229ec57c49e5abdd44be1e");

// BBL CA2 RSA, 2025: the root of the H2, P2 and X2
// 1dbde4681e34f2bc5b43667b76e99a9d31d2908f32fb28a29d359d2c7a9f7d72
static BBL_CA2_RSA_NAME: [u8; 72] =
    hex("3046310b300906035504061302434e3121301f060355040a0c1842424c20546563686e6f6c6f676965732043\
     6f2e204c74643114301206035504030c0b42424c2043413220525341");
static BBL_CA2_RSA_KEY: [u8; 550] =
    hex("30820222300d06092a864886f70d01010105000382020f003082020a0282020100a38e79d06e1ce368132b34\
     2a8b1c0a4f4f3d462cc8759a7239c180ebbf6b3da39d5ac32a5709d83cfd85a4ca972a48c56de744f92a4696\
     88b634a0ae88f35545babd3c738e6704eced82e86cec1fe77149b8eeaf445a7315f5f5b6573dce516a26f667\
     60ef4d807a4ccac89da1c59c82b0cdfd2203cb080f0790956d883756fcee6bd7f0671f5ee4a4fdc5de48a53a\
     9d4eb592e3b8d039528b85d4026c914894cadb94ec0b040c7e7c7a24c2a87ab6423a2adbb2ca3c3c0f2b1e6e\
     2d677568cab59da65b8eebf3167f27ecf7119a9cc89318e8c46dc7fcdbd63045b87b648eb6f92afd4333348a\
     96468d2486ef0be324fa123ded6f928cb491b88742efea0953359a4b382ef5c8d70957e6abcb7820bff7e613\
     faf4f2bde4b80b79cb48acff7a098013fda54c1b5f45ac55b44161327d3fa4cc6e2392e99f3db1ea6369cd90\
     4374fad8e3de1e16773ad68101288cafe585f71115592db3be3e699a0ca503febe62f5ec22a64b35e4e68fde\
     2b6d7183125dccc6ddced7d3a626e25e4d1a6df3a937ed5547edcd61af9b44e00a37219a45e106b325b66e37\
     23371e75e55ab38f7495c61312a79bdf17d1380358c4f7d33f97d8d00cce91ce44f494c71c180779b5449d36\
     f0e5aeab5069088abff66c5cf8172d359f3a9bda2cd120c1d32064cba18e9930bc0672a187de17d932c9d8c3\
     87b6efad7fff733fd5a2901497152d42d30203010001");
static BBL_CA2_RSA_ID: [u8; 20] = hex("d54981069dd6c3533748f1564c1b27f5ccd5a9f5");

// BBL CA2 ECC, 2025: no printer with a certificate of it is known yet
// fb3e35bc545f9b05fb3d0575bf1e35897b036badd124222d2cb2834c9c026420
static BBL_CA2_ECC_NAME: [u8; 72] =
    hex("3046310b300906035504061302434e3121301f060355040a0c1842424c20546563686e6f6c6f676965732043\
     6f2e204c74643114301206035504030c0b42424c2043413220454343");
static BBL_CA2_ECC_KEY: [u8; 91] =
    hex("3059301306072a8648ce3d020106082a8648ce3d03010703420004a4a4c5ef0452b72e035e9189ce008fc118\
     7c8212e5c540b7a896f21202ea4ef2606e2c1800f3c72bb9156d599eae4aa11ce4f841e5919531b774e4062c\
     0d95a5");
static BBL_CA2_ECC_ID: [u8; 20] = hex("ab91a6c8d84443b220a1fb1f0384ea384605de8d");

// BBL Device CA O1C2-V2, by BBL CA2 RSA: H2C
// a3be7bacc3214dd47b1a316484d629a5b0c7e77a3df31592ceed39dc77e25987
static DEVICE_O1C2_NAME: [u8; 82] =
    hex("3050310b300906035504061302434e3121301f060355040a0c1842424c20546563686e6f6c6f676965732043\
     6f2e204c7464311e301c06035504030c1542424c20446576696365204341204f3143322d5632");
static DEVICE_O1C2_KEY: [u8; 550] =
    hex("30820222300d06092a864886f70d01010105000382020f003082020a0282020100ae312e4bb9e47d850a662a\
     b41fa97a54a7aabd221d4c3df593637960f64a396ac6c3cafea25498181844bd067aa225456c70d5c3c0edea\
     f83f59be727dae96b2c1f5a43b5d4253db4b82297ccbeec9e83c038673587b595e9b30dbde1faf4820747839\
     651c53d4641758587035139b6fc52bd47bfea27c6dc4896d8002afae9f6442fd4e2c266ff43955ac902b8515\
     911e232d35b545f5dc857fd5e5b64ece71daf9f55d81b571a63d932dda606e5983e8bdbc92fde3c8165e5205\
     56ea36e2e306450ec856a8576ad01100ad15faf6ec90bf2c8eb7ae19a7e310852386f343a1768a43c154d0ae\
     df2be95d34cf20452f6bb9346f1fdc675b5a460e8ba9c11d68636e1ebce0c7f0485f62a68636a5d138f0a73f\
     fe33f109e383262e6d3266d6fd6d2d13e7e6cff33e497bfe1b6c2d1196f146b87437aa7afe3e260cfb4b4b9e\
     8659bffb1e4df4ba94b364df9a9270bdd2734f8fbb68abdb2570b5b7be2f28a8d471c8d226d8391a9bdfac76\
     831f3302ea13c0be5b34124c9152d8a1f6fa558eccf80d7f6473f0b5a3f10323a7dddb3059fa860095e79f4d\
     2a005887e16d972506949b5d860c5040fd82368b69d5ace8694a862edfbb578f345cee58a61fabefdffaa601\
     2ef2051c88e1569d5d2066557cc4b7759326f28521e4d12829214b6e3f16a5e206c96b7b568b9bb33e6e6be6\
     95074855396e8d315f2b41d2116be4034d0203010001");
static DEVICE_O1C2_ID: [u8; 20] = hex("7b00d6f98797b64283a4893e9595d45891ee398a");

// BBL Device CA N7-V2, by BBL CA2 RSA: P2S
// 5987cbd63aec6e48d233b5153ee73e96ceb113337fb12d96346eb203f1ddf7c5
static DEVICE_N7_NAME: [u8; 80] =
    hex("304e310b300906035504061302434e3121301f060355040a0c1842424c20546563686e6f6c6f676965732043\
     6f2e204c7464311c301a06035504030c1342424c20446576696365204341204e372d5632");
static DEVICE_N7_KEY: [u8; 550] =
    hex("30820222300d06092a864886f70d01010105000382020f003082020a0282020100d6afdf56f9b29d59b80f54\
     2dce4b5d5efe529274bebff56e08cd287561da43c1619625ee685503e6c1ed37a812503535e4a75cbdf792f3\
     9d123ddefd17f378f002161610ea65ad27267936f86bfbf484e421269af2505ba6ac2f0c777f93c6de0d02cd\
     ef6a5914c59c7a48424e5d7607abcf831c703d0b6ca9a163a40d187be6bf36436d10f044b7465496fff61f89\
     9ab01fd86957f73df92672ccfcb681806100b1f7da2c1b3f52e8e26f1765980eb850c065c24fd11b7aa85d7f\
     603c6d346a31787612eb1fc6cf15c277b1f87319d1f183db830ac3132f4492744e1c0f4661180e2479121a0f\
     b9677216667e09ace0ec078d2e8ec58d37adb07341ba8eb5152a25acff97af346475b26bc5adaf6eec800291\
     4aef559e2bdf0c95408ee5be2690c91e9c10d52ea488cb0e50fda001e0fa83b1c02c8b194e804f757d4940de\
     9d1937704ae414e2fe836e7b6bfaffe92ba9857980151c9f1e22c58cf98e86a890216b58cfceb3b163a3c88c\
     56ffd71b01ff5036b554657dc0de4553a4f2b94612974d121a912de3fd6302aae2a81537075742f81859f21b\
     a1096d7dc48da45ac64319c9848719e865f626a43e0074c62817f75a5153cfdc5e024ab8ea2f35c00541c138\
     c64983928011bf768f7e19c9c56741f381e1207584a4a81dcb93dd4023991f45135ddaa5fc30bf29e8089ce8\
     856d6ccf028de58cc106ffeccda9a2412d0203010001");
static DEVICE_N7_ID: [u8; 20] = hex("acfb2c390ab94ccc2ff0d9c41d7bc29b5dbb29ba");

// BBL Device CA N6-V2, by BBL CA2 RSA: X2D
// d5d9d771a3b5a5ac0d1fcf5662fd503c9453ae8483e6dad5a11647fbe53dee82
static DEVICE_N6_NAME: [u8; 80] =
    hex("304e310b300906035504061302434e3121301f060355040a0c1842424c20546563686e6f6c6f676965732043\
     6f2e204c7464311c301a06035504030c1342424c20446576696365204341204e362d5632");
static DEVICE_N6_KEY: [u8; 550] =
    hex("30820222300d06092a864886f70d01010105000382020f003082020a0282020100d4db61013ccbb7fe3ed223\
     d5ca690ff6f2b9cc7588a81086f76f169f9b66a7e6937f92a885db99790f67e33fdf9a8f3d4ae2747c459013\
     5cc297d0719765a8c6cca428ed32fe4a52c2aa2c656f464f8f6c04d032438451cff1a024c0e47c8604232426\
     b8c32eef7254d6bb6874bd151129a235dec61c7210a2e64e939aefb224bd9256bf036cdb6fa8c23e0526c9df\
     b2b965240c153ddcb1c0835bcdba27ac8b9598d2faa97f67f470e3392c60e76bbbedc9f41dd13ea473275285\
     ae22337ac0fa0aa85c45c28600e68c3d4304382b003e81e1a678fd6a21180bdf3ff622fb7e368174539b2cd2\
     d99d3252ec60884c215e06a20c5d56d607da5118a4806ddaa584d9d1f2016c662c4ed5e2c60bdee7b6420be6\
     13eeaba8609f2ae364e30e25a32b7e03460df511713b1cd8a6d99db05f150cf1c58b10384fce400b27034cbb\
     760d0d04967a5c386d8dda04b4f75766b270a35e96979df8a4353c5a35292e61343447b77e999bce57f01f53\
     a93351150f48e94066276889255db03460fa1129e0f27c96609a96fb7faeabd844251e67ed14bc9855d10943\
     f98a26341bd4528c4e1becd9536bef1e70fe446e062440272a877e70c48382877c59fc60e45f434ca4b0d935\
     b1d3df4b831645f77c0b4a73141e60efbbd94d0c3faa0e915ce67d24510ca117a12b402ce4a81e4436c04f76\
     0f718c7c17bc5914611c7d03048420244b0203010001");
static DEVICE_N6_ID: [u8; 20] = hex("9768d096e4b434a7fddf2f4b118359646762b413");

/// The bytes of `text`, in hexadecimal digits. An error in `text` fails the build.
#[allow(clippy::indexing_slicing, clippy::panic, reason = "runs at compile time only")]
const fn hex<const N: usize>(text: &str) -> [u8; N] {
    const fn digit(character: u8) -> u8 {
        match character {
            b'0'..=b'9' => character - b'0',
            b'a'..=b'f' => character - b'a' + 10,
            _ => panic!("not a hexadecimal digit"),
        }
    }
    let text = text.as_bytes();
    assert!(text.len() == 2 * N, "wrong number of digits");
    let mut bytes = [0; N];
    let mut at = 0;
    while at < N {
        bytes[at] = digit(text[2 * at]) << 4 | digit(text[2 * at + 1]);
        at += 1;
    }
    bytes
}
