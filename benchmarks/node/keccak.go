package main

import (
	"encoding/binary"
	"math/bits"
)

// Keccak-256 with the original padding, as Ethereum uses it (FIPS 202 has the permutation). For messages shorter than
// one block of the sponge, which addresses and topics are.
const (
	rateBytes = 136
	rounds    = 24
)

var roundConstants = makeRoundConstants()

// makeRoundConstants runs the linear feedback shift register of FIPS 202, section 3.2.5.
func makeRoundConstants() (constants [rounds]uint64) {
	register := uint16(1)
	for round := range constants {
		for j := 0; j <= 6; j++ {
			if register&1 == 1 {
				constants[round] |= 1 << (1<<j - 1)
			}
			register <<= 1
			if register>>8 == 1 {
				register ^= 0x171
			}
		}
	}
	return
}

func keccak(message []byte) (hash [32]byte) {
	var padded [rateBytes]byte
	copy(padded[:], message)
	padded[len(message)] ^= 0x01
	padded[rateBytes-1] ^= 0x80
	var state [25]uint64
	for i := range rateBytes / 8 {
		state[i] = binary.LittleEndian.Uint64(padded[8*i:])
	}
	for _, constant := range roundConstants {
		permute(&state, constant)
	}
	for i := range 4 {
		binary.LittleEndian.PutUint64(hash[8*i:], state[i])
	}
	return
}

// permute is one round: theta, rho with pi, chi, iota.
func permute(state *[25]uint64, constant uint64) {
	var columns [5]uint64
	for x := range columns {
		columns[x] = state[x] ^ state[x+5] ^ state[x+10] ^ state[x+15] ^ state[x+20]
	}
	for x := range columns {
		mixed := columns[(x+4)%5] ^ bits.RotateLeft64(columns[(x+1)%5], 1)
		for y := 0; y < 25; y += 5 {
			state[x+y] ^= mixed
		}
	}
	x, y, moved := 1, 0, state[1]
	for step := range 24 {
		x, y = y, (2*x+3*y)%5
		state[x+5*y], moved = bits.RotateLeft64(moved, (step+1)*(step+2)/2), state[x+5*y]
	}
	for y := 0; y < 25; y += 5 {
		row := [5]uint64(state[y : y+5])
		for x := range row {
			state[y+x] = row[x] ^ (^row[(x+1)%5] & row[(x+2)%5])
		}
	}
	state[0] ^= constant
}
