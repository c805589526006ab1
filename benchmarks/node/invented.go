package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

const (
	transferTopic   = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
	genesisTime     = 1_700_000_000
	blockSeconds    = 12
	logsOfOneTx     = 6
	valueMax        = 1 << 20
	hashNumberBytes = 8
	unknownType     = "0x7d"
)

// invented is a chain made while it is asked for, the same from the same numbers: block 0 is empty, every other one has
// `logs` Transfer events. Links and blooms are right; hashes and roots commit to nothing. All of it is final.
type invented struct {
	count, logs int
	tokens      []party
	holders     []party
	topic       party
}

// party is an address or a topic: as text, as a topic's word, and with the bits it sets in a bloom.
type party struct {
	text, word string
	bits       [3]uint16
}

func invent(blocks, logs, tokens, holders int) *invented {
	made := &invented{count: blocks, logs: logs}
	for i := range tokens {
		made.tokens = append(made.tokens, someone("token", i, true))
	}
	for i := range holders {
		made.holders = append(made.holders, someone("holder", i, false))
	}
	topic, _ := hex.DecodeString(transferTopic[2:])
	made.topic = party{text: transferTopic, bits: bloomBits(topic)}
	return made
}

// someone is an address; its bloom bits are those of the address itself (an emitter) or of its topic word.
func someone(kind string, number int, emitter bool) party {
	digest := sha256.Sum256(fmt.Appendf(nil, "%s %d", kind, number))
	address := digest[:20]
	word := append(make([]byte, 12), address...)
	found := party{text: "0x" + hex.EncodeToString(address), word: "0x" + hex.EncodeToString(word)}
	if emitter {
		found.bits = bloomBits(address)
	} else {
		found.bits = bloomBits(word)
	}
	return found
}

// bloomBits follows the yellow paper, section 4.3.1: eleven bits of each of the first three pairs of bytes.
func bloomBits(item []byte) (found [3]uint16) {
	hash := keccak(item)
	for i := range found {
		found[i] = binary.BigEndian.Uint16(hash[2*i:]) & 2047
	}
	return
}

// hash has the block's number in its first bytes, so that a block is found by it.
func (c *invented) hash(number int) string {
	var raw [32]byte
	if number >= 0 {
		raw = sha256.Sum256(fmt.Appendf(nil, "block %d", number))
		binary.BigEndian.PutUint64(raw[:hashNumberBytes], uint64(number))
	}
	return "0x" + hex.EncodeToString(raw[:])
}

func (c *invented) byHash(hash string) (int, bool) {
	raw, err := hex.DecodeString(strings.TrimPrefix(hash, "0x"))
	if err != nil || len(raw) != 32 {
		return 0, false
	}
	number := int(binary.BigEndian.Uint64(raw))
	return number, number >= 0 && number < c.count && c.hash(number) == hash
}

func (c *invented) id() int        { return 31337 }
func (c *invented) client() string { return "made-up chain" }
func (c *invented) head() int      { return c.count - 1 }
func (c *invented) safe() int      { return c.count - 1 }
func (c *invented) finalized() int { return c.count - 1 }

// event tells who moves how much in one log. Multiplied by large odd numbers, so that neighbours differ.
func (c *invented) event(number, index int) (token, sender, receiver *party, value int) {
	serial := uint64(number)*uint64(c.logs) + uint64(index)
	mixed := serial * 0x9e3779b97f4a7c15
	token = &c.tokens[serial%uint64(len(c.tokens))]
	sender = &c.holders[(mixed>>40)%uint64(len(c.holders))]
	receiver = &c.holders[(mixed>>20)%uint64(len(c.holders))]
	return token, sender, receiver, int(mixed >> 8 % valueMax)
}

func (c *invented) logsOf(number int) int {
	if number == 0 {
		return 0
	}
	return c.logs
}

// bloom is that of the logs first to last-1 of a block.
func (c *invented) bloom(number, first, last int) string {
	var bloom [256]byte
	set := func(bits [3]uint16) {
		for _, bit := range bits {
			bloom[255-bit/8] |= 1 << (bit % 8)
		}
	}
	for index := first; index < last; index++ {
		token, sender, receiver, _ := c.event(number, index)
		for _, each := range []*party{token, sender, receiver, &c.topic} {
			set(each.bits)
		}
	}
	return "0x" + hex.EncodeToString(bloom[:])
}

func (c *invented) transactionHash(number, transaction int) string {
	return fmt.Sprintf("0x%016x%s", transaction, c.hash(number)[18:])
}

func (c *invented) transactionsOf(number int) int {
	return (c.logsOf(number) + logsOfOneTx - 1) / logsOfOneTx
}

// appendBlock names transactions by their hashes only, also where they were to be whole.
func (c *invented) appendBlock(to []byte, number int, _ bool) []byte {
	root := "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"
	to = fmt.Appendf(to, `{"number":"%#x","hash":"%s","parentHash":"%s","timestamp":"%#x","logsBloom":"%s"`,
		number, c.hash(number), c.hash(number-1), genesisTime+blockSeconds*number, c.bloom(number, 0, c.logsOf(number)))
	to = fmt.Appendf(to, `,"stateRoot":"%s","transactionsRoot":"%s","receiptsRoot":"%s","gasLimit":"0x1c9c380"`, root, root, root)
	to = append(to, `,"gasUsed":"0x0","difficulty":"0x0","extraData":"0x","size":"0x267","uncles":[],"transactions":[`...)
	for transaction := range c.transactionsOf(number) {
		if transaction > 0 {
			to = append(to, ',')
		}
		to = fmt.Appendf(to, `"%s"`, c.transactionHash(number, transaction))
	}
	return append(to, "]}"...)
}

// appendReceipts gives receipts of a type that nobody knows, so that nobody recomputes the root, which is not right.
func (c *invented) appendReceipts(to []byte, number int) []byte {
	to = append(to, '[')
	for transaction := range c.transactionsOf(number) {
		if transaction > 0 {
			to = append(to, ',')
		}
		first := transaction * logsOfOneTx
		last := min(first+logsOfOneTx, c.logsOf(number))
		to = fmt.Appendf(to, `{"type":"%s","status":"0x1","cumulativeGasUsed":"%#x","gasUsed":"0x5208","logsBloom":"%s"`,
			unknownType, 21000*(transaction+1), c.bloom(number, first, last))
		to = fmt.Appendf(to, `,"transactionHash":"%s","transactionIndex":"%#x","blockHash":"%s","blockNumber":"%#x","logs":[`,
			c.transactionHash(number, transaction), transaction, c.hash(number), number)
		for index := first; index < last; index++ {
			if index > first {
				to = append(to, ',')
			}
			to = c.appendLog(to, number, index, c.hash(number))
		}
		to = append(to, "]}"...)
	}
	return append(to, ']')
}

func (c *invented) appendLogs(to []byte, number int, wanted *filter, first bool) ([]byte, int) {
	hash, count := c.hash(number), 0
	for index := range c.logsOf(number) {
		token, sender, receiver, _ := c.event(number, index)
		if !wanted.matches(token.text, []string{transferTopic, sender.word, receiver.word}) {
			continue
		}
		if !first || count > 0 {
			to = append(to, ',')
		}
		to = c.appendLog(to, number, index, hash)
		count++
	}
	return to, count
}

func (c *invented) appendLog(to []byte, number, index int, hash string) []byte {
	token, sender, receiver, value := c.event(number, index)
	transaction := index / logsOfOneTx
	to = fmt.Appendf(to, `{"address":"%s","topics":["%s","%s","%s"],"data":"0x%064x","blockNumber":"%#x"`,
		token.text, transferTopic, sender.word, receiver.word, value, number)
	to = fmt.Appendf(to, `,"blockHash":"%s","blockTimestamp":"%#x","transactionHash":"0x%016x%s"`,
		hash, genesisTime+blockSeconds*number, transaction, hash[18:])
	return fmt.Appendf(to, `,"transactionIndex":"%#x","logIndex":"%#x","removed":false}`, transaction, index)
}

func (c *invented) transaction(string) []byte { return nil }
func (c *invented) receipt(string) []byte     { return nil }

// truth has sums that a database gives as quickly as it counts.
func (c *invented) truth() []byte {
	rows, numbers, indexes, values := 0, 0, 0, 0
	for number := 1; number < c.count; number++ {
		for index := range c.logs {
			_, _, _, value := c.event(number, index)
			rows, numbers, indexes, values = rows+1, numbers+number, indexes+index, values+value
		}
	}
	return fmt.Appendf(nil, `{"head":%d,"rows":%d,"block_numbers":%d,"log_indexes":%d,"values":%d}`,
		c.head(), rows, numbers, indexes, values)
}
