package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

const lineBytesMax = 1 << 30

// recorded is the last step of a recording, every form of an answer ready.
type recorded struct {
	chainID          int
	clientName       string
	safeAt, finalAt  int
	blocks           []recordedBlock
	numbers          map[string]int
	transactions     map[string][]byte
	receiptsByTxHash map[string][]byte
}

type recordedBlock struct {
	hash, parent string
	full, brief  []byte
	receipts     []byte
	logs         []recordedLog
}

type recordedLog struct {
	address string
	topics  []string
	text    []byte
}

type title struct {
	ChainID int    `json:"chain_id"`
	Client  string `json:"client"`
	Steps   []struct {
		Head            string
		Safe, Finalized int
	} `json:"steps"`
}

// load reads a recording and keeps the branch that its last step ends on.
func load(path string) (*recorded, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := bufio.NewReaderSize(file, 1<<20)
	var heading title
	blocks := map[string]*recordedBlock{}
	made := &recorded{numbers: map[string]int{}, transactions: map[string][]byte{}, receiptsByTxHash: map[string][]byte{}}
	for row := 0; ; row++ {
		line, err := lines.ReadBytes('\n')
		if len(line) == 0 && err == io.EOF {
			break
		}
		if err != nil && err != io.EOF || len(line) > lineBytesMax {
			return nil, fmt.Errorf("line %d of %s cannot be read: %v", row+1, path, err)
		}
		if row == 0 {
			if err := json.Unmarshal(line, &heading); err != nil || len(heading.Steps) == 0 {
				return nil, fmt.Errorf("%s is no recording: %v", path, err)
			}
			continue
		}
		block, err := made.read(line)
		if err != nil {
			return nil, fmt.Errorf("line %d of %s: %w", row+1, path, err)
		}
		if block != nil {
			blocks[block.hash] = block
		}
	}
	last := heading.Steps[len(heading.Steps)-1]
	made.chainID, made.clientName, made.safeAt, made.finalAt = heading.ChainID, heading.Client, last.Safe, last.Finalized
	for hash := last.Head; blocks[hash] != nil; hash = blocks[hash].parent {
		made.blocks = append(made.blocks, *blocks[hash])
	}
	for i, j := 0, len(made.blocks)-1; i < j; i, j = i+1, j-1 {
		made.blocks[i], made.blocks[j] = made.blocks[j], made.blocks[i]
	}
	for number, block := range made.blocks {
		made.numbers[block.hash] = number
	}
	return made, nil
}

// read makes a block of one line; nil where the line holds something else.
func (c *recorded) read(line []byte) (*recordedBlock, error) {
	var parts struct {
		Block    json.RawMessage
		Receipts json.RawMessage
	}
	if err := json.Unmarshal(line, &parts); err != nil || parts.Block == nil {
		return nil, err
	}
	var fields struct {
		Hash         string
		ParentHash   string
		Transactions json.RawMessage
	}
	var transactions, receipts []json.RawMessage
	for _, each := range []struct {
		text []byte
		into any
	}{{parts.Block, &fields}, {parts.Receipts, &receipts}} {
		if err := json.Unmarshal(each.text, each.into); err != nil {
			return nil, err
		}
	}
	if err := json.Unmarshal(fields.Transactions, &transactions); err != nil {
		return nil, err
	}
	hashes, err := c.index(transactions, receipts)
	if err != nil {
		return nil, err
	}
	brief := bytes.Replace(parts.Block, fields.Transactions, []byte("["+strings.Join(hashes, ",")+"]"), 1)
	block := &recordedBlock{hash: fields.Hash, parent: fields.ParentHash, full: parts.Block, brief: brief, receipts: parts.Receipts}
	for _, receipt := range receipts {
		logs, err := readLogs(receipt)
		if err != nil {
			return nil, err
		}
		block.logs = append(block.logs, logs...)
	}
	return block, nil
}

// index keeps transactions and receipts by hash; returns the hashes as JSON texts.
func (c *recorded) index(transactions, receipts []json.RawMessage) ([]string, error) {
	hashes := make([]string, 0, len(transactions))
	for i, transaction := range transactions {
		var fields struct{ Hash string }
		if err := json.Unmarshal(transaction, &fields); err != nil {
			return nil, err
		}
		hashes = append(hashes, strconv.Quote(fields.Hash))
		c.transactions[fields.Hash] = transaction
		if i < len(receipts) {
			c.receiptsByTxHash[fields.Hash] = receipts[i]
		}
	}
	return hashes, nil
}

func readLogs(receipt []byte) ([]recordedLog, error) {
	var fields struct{ Logs []json.RawMessage }
	if err := json.Unmarshal(receipt, &fields); err != nil {
		return nil, err
	}
	logs := make([]recordedLog, 0, len(fields.Logs))
	for _, text := range fields.Logs {
		var log struct {
			Address string
			Topics  []string
		}
		if err := json.Unmarshal(text, &log); err != nil {
			return nil, err
		}
		logs = append(logs, recordedLog{log.Address, log.Topics, text})
	}
	return logs, nil
}

func (c *recorded) id() int        { return c.chainID }
func (c *recorded) client() string { return "replay of " + c.clientName }
func (c *recorded) head() int      { return len(c.blocks) - 1 }
func (c *recorded) safe() int      { return c.safeAt }
func (c *recorded) finalized() int { return c.finalAt }
func (c *recorded) truth() []byte  { return []byte("null") }

func (c *recorded) byHash(hash string) (int, bool) {
	number, known := c.numbers[hash]
	return number, known
}

func (c *recorded) appendBlock(to []byte, number int, full bool) []byte {
	if full {
		return append(to, c.blocks[number].full...)
	}
	return append(to, c.blocks[number].brief...)
}

func (c *recorded) appendReceipts(to []byte, number int) []byte {
	return append(to, c.blocks[number].receipts...)
}

func (c *recorded) appendLogs(to []byte, number int, wanted *filter, first bool) ([]byte, int) {
	count := 0
	logs := c.blocks[number].logs
	for i := range logs {
		if !wanted.matches(logs[i].address, logs[i].topics) {
			continue
		}
		if !first || count > 0 {
			to = append(to, ',')
		}
		to = append(to, logs[i].text...)
		count++
	}
	return to, count
}

func (c *recorded) transaction(hash string) []byte { return c.transactions[hash] }
func (c *recorded) receipt(hash string) []byte     { return c.receiptsByTxHash[hash] }
