// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

// Contracts for Gapless's tests. After an edit run compile.js beside this file; token.json is its output.

/// An ERC-20 whose balances always equal the fold of its Transfer events, unless emitMany was used.
contract Token {
    string public constant name = "Gapless Test Token";
    string public constant symbol = "GAP";
    uint8 public constant decimals = 18;
    uint256 public constant SUPPLY = 1e30;
    uint256 public totalSupply;
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;

    event Transfer(address indexed from, address indexed to, uint256 value);
    event Approval(address indexed owner, address indexed spender, uint256 value);

    constructor() {
        _mint(msg.sender, SUPPLY);
    }

    function transfer(address to, uint256 value) external returns (bool) {
        _move(msg.sender, to, value);
        return true;
    }

    function transferFrom(address from, address to, uint256 value) external returns (bool) {
        allowance[from][msg.sender] -= value;
        _move(from, to, value);
        return true;
    }

    function approve(address spender, uint256 value) external returns (bool) {
        allowance[msg.sender][spender] = value;
        emit Approval(msg.sender, spender, value);
        return true;
    }

    function mint(address to, uint256 value) external {
        _mint(to, value);
    }

    function burn(uint256 value) external {
        balanceOf[msg.sender] -= value;
        totalSupply -= value;
        emit Transfer(msg.sender, address(0), value);
    }

    /// The address number `index` of those transferMany and emitMany pay; known without asking the chain.
    function holder(uint256 index) public pure returns (address) {
        return address(uint160(uint256(keccak256(abi.encode(index)))));
    }

    /// `count` real transfers: each even one pays a derived holder from the caller, each odd one passes a part of that
    /// on to another. `holders` is how many derived addresses there are. Self-transfers and zero values occur.
    function transferMany(uint256 seed, uint256 count, uint256 holders) external {
        address payee;
        uint256 value;
        for (uint256 i = 0; i < count; i++) {
            uint256 draw = uint256(keccak256(abi.encode(seed, i)));
            address next = holder(draw % holders);
            if (i % 2 == 0) {
                value = (draw >> 128) % 1e18;
                _move(msg.sender, next, value);
                payee = next;
            } else {
                _move(payee, next, value / (1 + (draw >> 160) % 3));
            }
        }
    }

    /// `count` Transfer events that move nothing: cheap, and balances no longer equal their fold.
    function emitMany(uint256 seed, uint256 count, uint256 holders) external {
        for (uint256 i = 0; i < count; i++) {
            uint256 draw = uint256(keccak256(abi.encode(seed, i)));
            emit Transfer(holder(draw % holders), holder((draw >> 64) % holders), draw >> 140);
        }
    }

    function _mint(address to, uint256 value) private {
        totalSupply += value;
        balanceOf[to] += value;
        emit Transfer(address(0), to, value);
    }

    function _move(address from, address to, uint256 value) private {
        balanceOf[from] -= value;
        balanceOf[to] += value;
        emit Transfer(from, to, value);
    }
}

/// One event for each shape a decoder must know.
contract Oddities {
    struct Point {
        uint128 x;
        int128 y;
    }

    struct Order {
        address maker;
        Point[] points;
        bytes memo;
    }

    event Whisper(address indexed who, uint256 value) anonymous;
    event Hush(uint256 indexed a, uint256 indexed b, uint256 indexed c, uint256 indexed d, bytes data) anonymous;
    event Note(string indexed title, string body);
    event Hashed(uint256[] indexed values, Point indexed point, bytes indexed blob);
    event Ordered(uint256 indexed id, Order order, uint8[3] levels, string[] tags);
    event Grid(int256[2][] cells, bytes4[] marks);
    event Fixed(bytes4 indexed tag, bytes32 word, bool flag, int8 small, uint256 large);
    event Said(uint256 number);
    event Said(address indexed who);
    event Said(string text, uint256 number);
    event Transfer(address indexed from, address indexed to, uint256 amount, uint256 timestamp);
    event Empty();

    function emitAnonymous(uint256 value) external {
        emit Whisper(msg.sender, value);
        emit Hush(value, value + 1, value + 2, value + 3, abi.encode(value));
    }

    function emitDynamic(string calldata title, string calldata body) external {
        emit Note(title, body);
        uint256[] memory values = new uint256[](3);
        (values[0], values[1], values[2]) = (1, type(uint256).max, 3);
        emit Hashed(values, Point(1, -1), bytes(body));
    }

    function emitTuple(uint256 id, uint256 points) external {
        Order memory order = Order(msg.sender, new Point[](points), abi.encode(id));
        for (uint256 i = 0; i < points; i++) {
            order.points[i] = Point(uint128(i), -int128(uint128(i)));
        }
        string[] memory tags = new string[](2);
        (tags[0], tags[1]) = ("", unicode"gap–less");
        emit Ordered(id, order, [1, 2, 255], tags);
        int256[2][] memory cells = new int256[2][](points);
        bytes4[] memory marks = new bytes4[](points);
        for (uint256 i = 0; i < points; i++) {
            cells[i] = [int256(i), -int256(i)];
            marks[i] = bytes4(uint32(i));
        }
        emit Grid(cells, marks);
    }

    function emitFixed(bytes4 tag, int8 small) external {
        emit Fixed(tag, keccak256(abi.encode(tag)), small < 0, small, type(uint256).max);
        emit Empty();
    }

    function emitOverloads(uint256 number, string calldata text) external {
        emit Said(number);
        emit Said(msg.sender);
        emit Said(text, number);
    }

    function emitFourArguments(address to, uint256 amount) external {
        emit Transfer(msg.sender, to, amount, block.timestamp);
    }

    /// Any log at all: topics and data as given, so that a log may match an event's topic and not decode.
    function emitRaw(bytes32[] calldata topics, bytes calldata data) external {
        bytes memory body = data;
        uint256 count = topics.length;
        require(count <= 4, "a log has at most four topics");
        bytes32[4] memory t;
        for (uint256 i = 0; i < count; i++) {
            t[i] = topics[i];
        }
        assembly {
            let at := add(body, 32)
            let size := mload(body)
            switch count
            case 0 { log0(at, size) }
            case 1 { log1(at, size, mload(t)) }
            case 2 { log2(at, size, mload(t), mload(add(t, 32))) }
            case 3 { log3(at, size, mload(t), mload(add(t, 32)), mload(add(t, 64))) }
            default { log4(at, size, mload(t), mload(add(t, 32)), mload(add(t, 64)), mload(add(t, 96))) }
        }
    }

    /// A transaction that fails after it has logged: the log must not exist.
    function emitThenRevert() external {
        emit Empty();
        revert("as asked");
    }
}
