"""Fashion-MNIST: its names and checksums."""

FASHION_MNIST = "fashion-mnist"
NUM_TEST_IMAGES = 10_000
CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
# SHA-256 of the four files, decompressed: distributors compress them differently.
FASHION_MNIST_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


SAMPLE = "fashion-mnist-sample"

SAMPLE_SHA256 = {
    "train-images-idx3-ubyte": "4f4f01b5da612a3a813bd074442e170529dcef734e6adf2afb15766746e27831",
    "train-labels-idx1-ubyte": "28a1f13b424a56c99d03b91c44a37c0839c02ac1e85437d7f948783457f0a5bf",
    "t10k-images-idx3-ubyte": "a7e6eef449f7c83f1c2dba6505b02224920e910b572485403a04ca12c4ec1385",
    "t10k-labels-idx1-ubyte": "7f263de4d84344d9534a9f13f13a926d204aa475c95f773dba10340a19799f69",
}
