//! Checks that a point satisfies the equation of an elliptic curve. Products of field elements are
//! computed by additions modulo the prime.

/// A number in limbs of 64 bits, the lowest first. Numbers of P-256 fill four limbs.
type Number = [u64; 6];

/// A curve `y² = x³ - 3x + b` over a prime field (FIPS 186-4 D.1.2).
#[derive(Debug)]
pub(super) struct Curve {
    /// Number of bytes of a coordinate.
    bytes: usize,
    prime: Number,
    b: Number,
}

pub(super) const P256: Curve = Curve {
    bytes: 32,
    prime: [
        0xffff_ffff_ffff_ffff,
        0xffff_ffff,
        0,
        0xffff_ffff_0000_0001,
        0,
        0,
    ],
    b: [
        0x3bce_3c3e_27d2_604b,
        0x651d_06b0_cc53_b0f6,
        0xb3eb_bd55_7698_86bc,
        0x5ac6_35d8_aa3a_93e7,
        0,
        0,
    ],
};

pub(super) const P384: Curve = Curve {
    bytes: 48,
    prime: [
        0x0000_0000_ffff_ffff,
        0xffff_ffff_0000_0000,
        0xffff_ffff_ffff_fffe,
        0xffff_ffff_ffff_ffff,
        0xffff_ffff_ffff_ffff,
        0xffff_ffff_ffff_ffff,
    ],
    b: [
        0x2a85_c8ed_d3ec_2aef,
        0xc656_398d_8a2e_d19d,
        0x0314_088f_5013_875a,
        0x181d_9c6e_fe81_4112,
        0x988e_056b_e3f8_2d19,
        0xb331_2fa7_e23e_e7e4,
    ],
};

impl Curve {
    /// True if `x` and `y` are the coordinates of a point, each with the size of the field.
    pub(super) fn has(&self, x: &[u8], y: &[u8]) -> bool {
        if x.len() != self.bytes || y.len() != self.bytes {
            return false;
        }
        let (x, y) = (number(x), number(y));
        if !is_less(&x, &self.prime) || !is_less(&y, &self.prime) {
            return false;
        }
        let cube = self.times(&self.times(&x, &x), &x);
        let three = self.plus(&self.plus(&x, &x), &x);
        // The equation is compared in the form y² + 3x = x³ + b.
        self.plus(&self.times(&y, &y), &three) == self.plus(&cube, &self.b)
    }

    fn plus(&self, one: &Number, other: &Number) -> Number {
        let (mut sum, mut carry) = ([0; 6], 0);
        for at in 0..6 {
            let limb = u128::from(one[at]) + u128::from(other[at]) + carry;
            (sum[at], carry) = (limb as u64, limb >> 64);
        }
        if carry == 0 && is_less(&sum, &self.prime) {
            return sum;
        }
        let mut borrow = false;
        for (limb, prime) in sum.iter_mut().zip(self.prime) {
            let (difference, first) = limb.overflowing_sub(prime);
            let (difference, second) = difference.overflowing_sub(borrow.into());
            (*limb, borrow) = (difference, first || second);
        }
        sum
    }

    fn times(&self, one: &Number, other: &Number) -> Number {
        let mut product = [0; 6];
        for bit in (0..self.bytes * 8).rev() {
            product = self.plus(&product, &product);
            if other[bit / 64] >> (bit % 64) & 1 == 1 {
                product = self.plus(&product, one);
            }
        }
        product
    }
}

fn number(bytes: &[u8]) -> Number {
    let mut number = [0; 6];
    for (at, byte) in bytes.iter().rev().enumerate() {
        number[at / 8] |= u64::from(*byte) << (at % 8 * 8);
    }
    number
}

fn is_less(one: &Number, other: &Number) -> bool {
    one.iter().rev().lt(other.iter().rev())
}
